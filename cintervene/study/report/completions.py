# SPDX-License-Identifier: Apache-2.0
"""The answers of a study in the format of HarmBench's judging scripts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from cintervene.evaluate.benchmarks.harmbench import write_completions
from cintervene.study.results import CaseResult

__all__ = ["DIRECTORY", "write_study_completions"]

DIRECTORY = "completions"


def write_study_completions(directory: Path, cases: Sequence[CaseResult]) -> list[Path]:
    """Write ``completions/DEFENCE.ATTACK.json`` for each defence under each attack.

    Harmful requests only. The prefill is part of the completion, because a judge that
    reads only the rest cannot tell what it continues.

    Raises
    ------
    OSError
        A file cannot be written.
    """
    groups: dict[Path, list[CaseResult]] = {}
    for case in cases:
        if case.suite == "harmful":
            name = re.sub(r"[\s/]+", "-", f"{case.defence}.{case.attack}.json")
            groups.setdefault(directory / DIRECTORY / name, []).append(case)
    for path, group in groups.items():
        path.parent.mkdir(exist_ok=True)
        write_completions(
            path,
            [case.behaviour for case in group],
            [case.prompt for case in group],
            [case.prefill + case.answer for case in group],
        )
    return list(groups)
