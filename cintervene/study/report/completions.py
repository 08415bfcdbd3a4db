# SPDX-License-Identifier: Apache-2.0
"""The answers of a study in the format of HarmBench's judging scripts."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cintervene.evaluate.benchmarks.harmbench import completions_text
from cintervene.study.results import CaseResult

__all__ = ["DIRECTORY", "study_completions"]

DIRECTORY = "completions"


def study_completions(cases: Sequence[CaseResult]) -> dict[str, str]:
    """Return ``completions/DEFENCE.ATTACK.json`` for each defence under each attack.

    Harmful requests only. The prefill is part of the completion, because a judge that
    reads only the rest cannot tell what it continues.

    Returns
    -------
    dict of str to str
        The text of each file by its name.
    """
    groups: dict[str, list[CaseResult]] = {}
    for case in cases:
        if case.suite == "harmful":
            name = re.sub(r"[^\w.,+=@-]+", "-", f"{case.defence}.{case.attack}.json")
            groups.setdefault(f"{DIRECTORY}/{name}", []).append(case)
    return {
        name: completions_text(
            [case.behaviour for case in group],
            [case.prompt for case in group],
            [case.prefill + case.answer for case in group],
        )
        for name, group in groups.items()
    }
