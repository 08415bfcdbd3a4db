# SPDX-License-Identifier: Apache-2.0
"""Statistics of the same items before and after."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch")
stats = pytest.importorskip("scipy.stats")

from cintervene.errors import ArgumentError
from cintervene.evaluate.statistics.intervals import wilson
from cintervene.evaluate.statistics.paired import (
    agreement,
    confusion,
    exact_mcnemar,
)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_binomial_test(gained: int, lost: int) -> None:
    total = gained + lost
    expected = stats.binomtest(gained, total).pvalue if total else 1.0
    assert exact_mcnemar(gained, lost) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_refuses_negative_counts() -> None:
    with pytest.raises(ArgumentError, match="expected counts"):
        exact_mcnemar(-1, 2)


def test_agreement_of_two_judges() -> None:
    first = [True] * 40 + [False] * 60
    second = [True] * 35 + [False] * 5 + [True] * 10 + [False] * 50
    found = agreement(first, second)
    assert found.items == 100
    assert found.agree == wilson(85, 100)
    assert (found.only_first, found.only_second) == (5, 10)
    assert found.kappa.value == pytest.approx(confusion(first, second).kappa)
    # By the delta method the standard error is about 0.072.
    assert found.kappa.low == pytest.approx(found.kappa.value - 0.14, abs=0.03)
    assert found.kappa.high == pytest.approx(found.kappa.value + 0.14, abs=0.03)
    assert agreement(first, second) == found


def test_agreement_without_disagreement_has_no_kappa() -> None:
    found = agreement([True] * 5, [True] * 5)
    assert found.agree.value == 1.0
    kappa = found.kappa
    assert all(math.isnan(one) for one in (kappa.value, kappa.low, kappa.high))


def test_kappa() -> None:
    found = confusion([1, 1, 0, 0], [1, 0, 0, 0])
    assert found.accuracy == 0.75
    assert found.kappa == pytest.approx(0.5)
    assert math.isnan(confusion([1, 1], [1, 1]).kappa)
    with pytest.raises(ArgumentError, match="same items"):
        confusion([1], [1, 0])
