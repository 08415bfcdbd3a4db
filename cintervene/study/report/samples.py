# SPDX-License-Identifier: Apache-2.0
"""Test cases worth reading: the same request to every defence, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from cintervene.study.results import CaseResult

__all__ = ["Sample", "samples"]

MOST = 24


@dataclass(frozen=True, slots=True)
class Sample:
    """The answers of all defences to one request under one attack."""

    cases: list[CaseResult]

    @property
    def disputed(self) -> bool:
        """Whether the outcomes differ."""
        return len({case.outcome for case in self.cases}) > 1


def samples(cases: Sequence[CaseResult], most: int = MOST) -> list[Sample]:
    """Choose requests to show, those with different outcomes first.

    Suites and attacks take turns, so that all are represented; nothing is random.
    """
    groups: dict[tuple[str, str], dict[tuple[str, int], list[CaseResult]]] = {}
    for case in cases:
        row = groups.setdefault((case.suite, case.attack), {})
        row.setdefault((case.behaviour, case.number), []).append(case)
    ranked = [
        sorted(map(Sample, row.values()), key=lambda sample: not sample.disputed)
        for row in groups.values()
    ]
    turns = (sample for turn in zip_longest(*ranked) for sample in turn if sample)
    chosen = [sample for sample, _ in zip(turns, range(most), strict=False)]
    return sorted(chosen, key=lambda sample: not sample.disputed)
