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
from cintervene.evaluate.statistics.paired import confusion, exact_mcnemar


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_binomial_test(gained: int, lost: int) -> None:
    total = gained + lost
    expected = stats.binomtest(gained, total).pvalue if total else 1.0
    assert exact_mcnemar(gained, lost) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_refuses_negative_counts() -> None:
    with pytest.raises(ArgumentError, match="expected counts"):
        exact_mcnemar(-1, 2)


def test_kappa() -> None:
    found = confusion([1, 1, 0, 0], [1, 0, 0, 0])
    assert found.accuracy == 0.75
    assert found.kappa == pytest.approx(0.5)
    assert math.isnan(confusion([1, 1], [1, 1]).kappa)
    with pytest.raises(ArgumentError, match="same items"):
        confusion([1], [1, 0])
