# SPDX-License-Identifier: Apache-2.0
"""Refused, complied or broken, and how sure that is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch")
stats = pytest.importorskip("scipy.stats")

from cintervene.errors import ArgumentError
from cintervene.evaluate.requests.outcomes import (
    Outcome,
    compare_outcomes,
    count,
    judge_refusal,
    outcomes,
)
from cintervene.evaluate.statistics.paired import confusion
from cintervene.judges.degenerate import repetition

REFUSED, COMPLIED, BROKEN = Outcome


def test_an_answer_may_refuse_once_the_sentence_begun_has_ended() -> None:
    answers = [" a plan for it:\n\nI'm sorry, but I can't help.", " a plan. Take"] * 2
    prefills = ["Sure, here is"] * 2 + ["Here it is:"] * 2
    assert outcomes(answers, prefills=prefills) == [
        REFUSED,
        COMPLIED,
        COMPLIED,
        COMPLIED,
    ]
    assert outcomes(answers) == [COMPLIED] * 4
    with pytest.raises(
        ArgumentError, match="prefills: got 1, expected one for each of"
    ):
        outcomes(answers, prefills=prefills[:1])


def test_a_judge_is_asked_again_only_about_what_follows_a_begun_sentence() -> None:
    asked = []

    def judge(prompts, answers):
        asked.append((list(prompts), list(answers)))
        return [answer.startswith("No") for answer in answers]

    answers = [" a plan. No.", "No.", " a plan. Yes."]
    prefills = ["Sure, here is", "", "Sure, here is"]
    found = outcomes(answers, prompts=list("abc"), prefills=prefills, judge=judge)
    assert found == [REFUSED, REFUSED, COMPLIED]
    assert asked == [(list("abc"), answers), (["a", "c"], ["No.", "Yes."])]
    outcomes(answers, prefills=[""] * 3, judge=judge)
    assert len(asked) == 3


@given(st.text(max_size=600))
def test_any_text_can_be_judged(text: str) -> None:
    assert judge_refusal(text) in {True, False}
    assert 0.0 <= repetition(text) <= 1.0
    assert outcomes([text])[0] in Outcome


def test_outcomes_are_sorted_by_judge_and_perplexity() -> None:
    answers = ["I can't.", "Sure, like this.", "xkq zzv wpf", "Well, then."]
    assert outcomes(answers, perplexities=[1, 2, 5000, np.nan]) == [
        REFUSED,
        COMPLIED,
        BROKEN,
        BROKEN,
    ]
    judged = outcomes(
        answers,
        prompts=list("abcd"),
        judge=lambda prompts, answers: [one == "b" for one in prompts],
    )
    assert judged == [COMPLIED, REFUSED, COMPLIED, COMPLIED]


def test_lengths_must_agree() -> None:
    with pytest.raises(ArgumentError, match=r"prompts: got 1.*each of the 2 answers"):
        outcomes(["a", "b"], prompts=["a"])
    with pytest.raises(ArgumentError, match="judge: got 0"):
        outcomes(["a"], judge=lambda prompts, answers: [])
    with pytest.raises(ArgumentError, match="perplexities: got 2"):
        outcomes(["a"], perplexities=[1.0, 2.0])


def test_rates_add_up() -> None:
    found = count([REFUSED, REFUSED, COMPLIED, BROKEN])
    rates = [found.refused, found.complied, found.broken]
    assert [one.value for one in rates] == [0.5, 0.25, 0.25]
    assert all(one.low < one.value < one.high for one in rates)


def test_comparison_is_paired() -> None:
    before = [COMPLIED] * 9 + [REFUSED]
    after = [REFUSED] * 7 + [COMPLIED, BROKEN, COMPLIED]
    found = compare_outcomes(before, after)
    assert (found.gained, found.lost) == (1, 8)
    assert found.rate.effect.value == pytest.approx(-0.7)
    assert found.p == pytest.approx(2 * (1 + 9) / 2**9)
    assert compare_outcomes(before, after, BROKEN).gained == 1


def test_verdicts_on_labelled_answers_are_those_of_the_documentation() -> None:
    """docs/outcomes.md; answers that complied are stored by their first words only."""
    labels = Path(__file__).parents[1] / "support" / "outcome_labels.json"
    stored = json.loads(labels.read_text())
    whole = [one for one in stored if one["label"] != "complied"]
    texts = [one["begins"] for one in whole]
    assert [judge_refusal(text) for text in texts] == [one["matcher"] for one in whole]
    assert [str(one) for one in outcomes(texts)] == [one["outcome"] for one in whole]
    found = confusion(
        [one["label"] == "refused" for one in stored],
        [one["matcher"] for one in stored],
    )
    assert (found.hits, found.misses) == (55, 6)
    assert (found.false_alarms, found.rejections) == (5, 152)
    assert round(found.kappa, 2) == 0.87
