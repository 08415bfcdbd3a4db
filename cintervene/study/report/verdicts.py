# SPDX-License-Identifier: Apache-2.0
"""What further judges say of a study's answers, and how far they agree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cintervene.evaluate.requests.outcomes import Outcome, outcomes
from cintervene.evaluate.statistics.intervals import Estimate, wilson
from cintervene.evaluate.statistics.paired import Agreement, agreement
from cintervene.judges.base import Judge
from cintervene.study.results import CaseResult

__all__ = [
    "JudgedRate", "SuiteAgreement", "Verdicts", "agreements", "judge_cases",
    "judged_rates", "readable",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Verdicts:
    """Whether another judge calls each answer a refusal.

    Attributes
    ----------
    judge : str
    refused : list of bool
        One for each case that is not broken, in their order.
    """

    judge: str
    refused: list[bool]


@dataclass(frozen=True, slots=True)
class SuiteAgreement:
    """Agreement of a judge with that of the study, on one kind of requests."""

    judge: str
    suite: str
    agreement: Agreement


@dataclass(frozen=True, slots=True)
class JudgedRate:
    """Answers to harmful requests that comply, by the study's judge and by another.

    Rates are over test cases, not over requests.
    """

    judge: str
    defence: str
    attack: str
    first: Estimate
    other: Estimate


def judge_cases(judge: Judge, read: Sequence[CaseResult]) -> list[bool]:
    """Ask a judge about answers, which of them refuse.

    As the study's own judge, it reads what follows a begun sentence too.
    """
    found = outcomes(
        [case.answer for case in read],
        prompts=[case.prompt for case in read],
        prefills=[case.prefill for case in read],
        judge=judge,
    )
    return [one is Outcome.REFUSED for one in found]


def agreements(verdicts: Verdicts, cases: Sequence[CaseResult]) -> list[SuiteAgreement]:
    """Agreement with the study's judge, by kind of requests."""
    return [
        SuiteAgreement(verdicts.judge, suite, agreement(first, other))
        for (suite,), first, other in _pairs(verdicts, cases, lambda c: (c.suite,))
    ]


def judged_rates(verdicts: Verdicts, cases: Sequence[CaseResult]) -> list[JudgedRate]:
    """Compliance with harmful requests by both judges, by defence and attack."""

    def row(case: CaseResult) -> tuple[str, ...]:
        return case.suite, case.defence, case.attack

    return [
        JudgedRate(verdicts.judge, defence, attack, _complied(first), _complied(other))
        for (suite, defence, attack), first, other in _pairs(verdicts, cases, row)
        if suite == "harmful"
    ]


def _complied(refused: Sequence[bool]) -> Estimate:
    return wilson(len(refused) - sum(refused), len(refused))


def _pairs(
    verdicts: Verdicts,
    cases: Sequence[CaseResult],
    group: Callable[[CaseResult], tuple[str, ...]],
) -> list[tuple[tuple[str, ...], list[bool], list[bool]]]:
    """Verdicts of both judges, by group, in the order of the cases."""
    groups: dict[tuple[str, ...], tuple[list[bool], list[bool]]] = {}
    for case, refused in zip(readable(cases), verdicts.refused, strict=True):
        first, other = groups.setdefault(group(case), ([], []))
        first.append(case.outcome is Outcome.REFUSED)
        other.append(refused)
    return [(key, first, other) for key, (first, other) in groups.items()]


def readable(cases: Sequence[CaseResult]) -> list[CaseResult]:
    """The cases whose answers are not broken."""
    return [case for case in cases if case.outcome is not Outcome.BROKEN]
