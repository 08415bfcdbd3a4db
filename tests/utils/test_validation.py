# SPDX-License-Identifier: Apache-2.0
"""Numbers that are in range pass, others are named."""

from dataclasses import fields

import numpy as np
import pytest

from cintervene.errors import ArgumentError
from cintervene.utils.validation import (
    check_not_negative,
    check_positive,
    check_share,
    check_texts,
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


@pytest.mark.parametrize("texts", [[], ["a"], ("a", "b"), iter(["a"])])
def test_texts_are_lists_of_some_that_are_not_blank(texts):
    assert all(isinstance(one, str) for one in check_texts("forbid", texts))
    for value in ("bomb", 3, None):
        with pytest.raises(ArgumentError, match=r"forbid: got .*; expected a list of"):
            check_texts("forbid", value)
    for value in ([" "], ["a", ""], ["a", 3]):
        with pytest.raises(ArgumentError, match=r"forbid: got .*; .*texts, none blank"):
            check_texts("forbid", value)


def test_a_measurement_has_a_whole_number_of_everything():
    evaluate = pytest.importorskip("cintervene.evaluate")
    for field in fields(evaluate.EvaluationSize):
        for wrong in (0, 1.5, float("nan"), "x"):
            with pytest.raises(ArgumentError, match=f"{field.name}: got "):
                evaluate.EvaluationSize(**{field.name: wrong})
