# SPDX-License-Identifier: Apache-2.0
"""Strengths by word where a whole matrix is changed."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from cintervene.methods.pcr.config import PCRConfig
from cintervene.methods.pcr.constraints import TokenConstraintIndex
from cintervene.methods.pcr.method import constrain
from cintervene.methods.pcr.resolve import tuned_by_word
from cintervene.methods.pcr.strength import (
    Candidate,
    Measured,
    SweepPoint,
    Tuning,
    WordLimits,
)
from cintervene.methods.pcr.word_strengths import best_by_word, even_out, evened
from cintervene.models.parts import ModelParts
from cintervene.prompts.calibration import Calibration
from cintervene.prompts.target_spans import TargetSpan
from cintervene.utils.clock import Clock
from cintervene.utils.progress import silent

LIMITS = WordLimits(effect=10.0, kl=0.05, benign_loss=0.05)


def _measured(kl: float, **risen: float) -> Measured:
    return Measured(SweepPoint(1.0, 2.0, 1.0, kl, 1.0), risen)


def test_the_weakest_are_asked_for_more_and_those_far_beyond_for_less() -> None:
    """Drift as aimed at: only the shares change, by the power of 0.7."""
    measured = _measured(0.75 * 0.05, weak=1.0, usual=2.0, strong=3.0, far=40.0)
    asked = evened(dict.fromkeys(measured.by_word, 10.0), measured, LIMITS)
    assert asked["weak"] == pytest.approx(10.0 * 2.5**0.7 if 2.5**0.7 < 1.7 else 17.0)
    assert asked["usual"] == pytest.approx(10.0 * 1.25**0.7)
    assert asked["strong"] == pytest.approx(10.0 * (2.5 / 3.0) ** 0.7)
    assert asked["far"] == pytest.approx(5.0)


@pytest.mark.parametrize(
    ("kl", "risen", "factor"),
    [
        (4 * 0.75 * 0.05, 2.0, 0.5),
        (0.75 * 0.05 / 1.21, 2.0, 1.1),
        (1e-4, math.log(10.0) / 0.85 / 1.2, 1.2),
        (1e-9, 0.3, 1.5),
    ],
)
def test_all_are_asked_for_what_the_goal_and_the_limits_leave(
    kl: float, risen: float, factor: float
) -> None:
    measured = _measured(kl, one=risen, other=risen)
    asked = evened({"one": 8.0, "other": 12.0}, measured, LIMITS)
    assert asked == pytest.approx({"one": 8.0 * factor, "other": 12.0 * factor})


def _candidate(kl: float, *risen: float) -> Candidate:
    point = SweepPoint(1.0, 2.0, 1.0, kl, 1.0)
    return Candidate([], point, {}, {str(i): nats for i, nats in enumerate(risen)})


def test_the_tenth_percentile_chooses_not_the_mean() -> None:
    uneven, even = _candidate(0.03, 0.5, 9.0), _candidate(0.035, 1.5, 1.6)
    beyond = _candidate(0.06, 3.0, 3.0)
    assert best_by_word([uneven, even, beyond], LIMITS) is even
    assert best_by_word([beyond], LIMITS) is beyond
    enough, more = _candidate(0.01, 2.8, 3.0), _candidate(0.03, 5.0, 5.0)
    assert best_by_word([enough, more], LIMITS) is enough


def _spans(rng: np.random.Generator, n: int, word: str = "") -> list[TargetSpan]:
    rows = rng.integers(3, 97, size=(n, 7))
    return [TargetSpan(tuple(map(int, r)), 5, word, weights=(1.0, 1.0)) for r in rows]


def test_each_constraint_is_asked_for_its_own_words_strength(tiny_model: Any) -> None:
    rng = np.random.default_rng(7)
    forget = [*_spans(rng, 2, "a"), *_spans(rng, 2, "b")]
    near, retain = _spans(rng, 3), _spans(rng, 9)
    config = PCRConfig(
        forbid=["a"], layers=[2, 3], concepts="contrast", slack=0.1, hinge="off"
    )
    calibration = Calibration(forget, near, retain, [], [], [])
    layerwise = constrain(ModelParts.find(tiny_model("llama")), calibration, config)
    first = {
        strength: layerwise.solve(strength)[0].requested for strength in (4.0, 6.0, 8.0)
    }
    own = layerwise.solve({"a": 4.0, "b": 8.0})[0].requested
    index = TokenConstraintIndex.of(forget, near)
    sequences = index.sequences[index.rows]
    expected = np.select(
        [sequences < 2, sequences < 4], [first[4.0], first[8.0]], first[6.0]
    )
    np.testing.assert_allclose(own, expected)


@pytest.mark.parametrize("architecture", ["gpt2", "gemma3"])
def test_rounds_bring_words_together_without_a_gated_mlp_or_past_a_norm(
    architecture: str, tiny_model: Any
) -> None:
    rng = np.random.default_rng(11)
    parts = ModelParts.find(tiny_model(architecture))
    words = ["a", "b", "c"]
    forget, tune = (
        [one for word in words for one in _spans(rng, 3, word)] for _ in range(2)
    )
    # The tuning texts are those learnt from: a random model has nothing to carry over.
    tune = [replace(one) for one in forget]
    near, retain = _spans(rng, 4), _spans(rng, 20)
    calibration = Calibration(forget, near, retain, tune, near, retain)
    config = PCRConfig(
        forbid=words, layers=[2, 3], concepts="contrast", slack=0.3, hinge="off"
    )
    layerwise = constrain(parts, calibration, config)
    tuning = Tuning(parts, calibration, 2)
    loose = WordLimits(effect=3.0, kl=10.0, benign_loss=10.0)
    tried = even_out(layerwise, tuning, words, loose, Clock(), silent)
    uneven = [np.ptp(list(one.by_word.values())) for one in tried]
    assert min(uneven[1:]) < uneven[0]
    assert len({round(s, 6) for s in tried[1].strengths.values()}) == len(words)


def test_words_are_told_apart_by_four_answers_of_each_kind() -> None:
    answers = {
        strength: tuned_by_word(
            PCRConfig(forbid=["a"], hinge="off", strength=strength)
        ).calibration.tune_answers
        for strength in ("auto", 8.0)
    }
    assert answers == {"auto": 4, 8.0: 2}
