# SPDX-License-Identifier: Apache-2.0
"""Numbers that are in range pass, others are named."""

from dataclasses import fields
from importlib import import_module

import numpy as np
import pytest

from cintervene.errors import ArgumentError
from cintervene.utils.validation import (
    check_not_negative,
    check_positive,
    check_share,
    check_whole,
)


@pytest.mark.parametrize("value", [1e-300, 1, np.float32(2.0), np.array(0.5)])
def test_positive_numbers_pass(value):
    check_positive(ridge=value)


@pytest.mark.parametrize(
    "value", [0.0, -1, np.inf, np.nan, None, "1", [1.0], np.array([1.0, 2.0])]
)
def test_others_are_named(value):
    with pytest.raises(ArgumentError, match=r"ridge: got .*; expected a positive"):
        check_positive(fine=1.0, ridge=value)


def test_numbers_from_zero_on():
    check_not_negative(none=0, some=np.float32(2.0))
    for value in (-5, np.nan, np.inf, "x", None):
        with pytest.raises(ArgumentError, match=r"weight: got .*; .* number from 0 on"):
            check_not_negative(weight=value)


def test_shares_include_both_ends():
    check_share(none=0, half=np.float64(0.5), all=1.0)
    for value in (-1e-9, 1.1, np.nan, "half"):
        with pytest.raises(ArgumentError, match=r"part: got .*; expected a number"):
            check_share(part=value)


def test_whole_numbers_from_the_least_on():
    check_whole(1, steps=1, parts=np.int64(7))
    for value in (0, 1.5, 2.0, None):
        with pytest.raises(ArgumentError, match=r"steps: got .*; .* number from 1 on"):
            check_whole(1, steps=value)


def test_options_refuse_numbers_out_of_range():
    pytest.importorskip("cintervene.models")
    from cintervene.methods.gate.config import GateOptions
    from cintervene.methods.tsr.config import TSROptions

    for options in (TSROptions, GateOptions):
        with pytest.raises(ArgumentError, match="steps: got 0"):
            options(steps=0)
        with pytest.raises(ArgumentError, match="first_token: got 2"):
            options(first_token=2)
    # None of the package's prompts, and none of the model's own answers.
    TSROptions(answers=0, answer_tokens=0, borderline=0)
    GateOptions(benign=0, answer_tokens=0)


# What is wrong for a number of each kind.
NEGATIVE, NONE, PART, WORD = -5, 0, 1.5, "x"
BAD = {
    "TSROptions": {
        "steps": PART, "parts": NONE, "ball": WORD, "length": NONE, "inertia": PART,
        "kl_weight": NEGATIVE, "first_token": WORD, "ridge": NONE, "output_ridge": WORD,
        "answers": PART, "answer_tokens": NEGATIVE, "borderline": WORD,
    },
    "GateOptions": {
        "ridge": NONE, "sharpness": WORD, "steps": PART, "lessons": NONE,
        "length": NEGATIVE, "first_token": PART, "benign": PART,
        "answer_tokens": NEGATIVE,
    },
    "PCROptions": {
        "concepts": WORD, "slack": NEGATIVE, "ridge": NONE, "output_ridge": NONE,
        "solver": WORD, "max_rank": PART,
    },
    "Budget": {
        "starting": NEGATIVE, "later": PART, "contrast_words": WORD,
        "text_words": NEGATIVE, "prompts": PART, "texts": WORD, "answer_tokens": NONE,
        "tune_words": NONE, "tune_prompts": NONE, "positions": NONE,
        "contrast_prompts": NEGATIVE,
    },
}  # fmt: skip


PLACES = {
    "TSROptions": "cintervene.methods.tsr.config",
    "GateOptions": "cintervene.methods.gate.config",
    "PCROptions": "cintervene.methods.pcr.config",
    "Budget": "cintervene.prompts.calibration",
}


@pytest.mark.parametrize("kind", BAD)
def test_no_option_is_left_unchecked(kind):
    pytest.importorskip("cintervene.models")
    options = getattr(import_module(PLACES[kind]), kind)
    checked = {field.name for field in fields(options)}
    assert checked == set(BAD[kind])
    for name, value in BAD[kind].items():
        for wrong in (value, float("nan"), [1, 2]):
            with pytest.raises(ArgumentError, match=f"{name}: got "):
                options(**{name: wrong})


def test_a_measurement_has_a_whole_number_of_everything():
    evaluate = pytest.importorskip("cintervene.evaluate")
    for field in fields(evaluate.EvaluationSize):
        for wrong in (0, 1.5, float("nan"), "x"):
            with pytest.raises(ArgumentError, match=f"{field.name}: got "):
                evaluate.EvaluationSize(**{field.name: wrong})
