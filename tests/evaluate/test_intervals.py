# SPDX-License-Identifier: Apache-2.0
"""Intervals against published examples, their defining equations and coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch")
pytest.importorskip("transformers")

from cintervene.errors import ArgumentError
from cintervene.evaluate.statistics.intervals import (
    Estimate,
    bootstrap_mean,
    paired_difference,
    wilson,
)

Z = 1.959963984540054


@pytest.mark.parametrize(
    ("hits", "total", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_published(hits: int, total: int, low: float, high: float) -> None:
    found = wilson(hits, total)
    assert found.value == hits / total
    assert (round(found.low, 4), round(found.high, 4)) == (low, high)


@given(st.integers(1, 500), st.data())
def test_wilson_inverts_the_score_test(total: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, total))
    found = wilson(hits, total)
    assert 0.0 <= found.low <= found.value <= found.high <= 1.0
    for bound in (found.low, found.high):
        deviation = abs(found.value - bound)
        assert deviation == pytest.approx(
            Z * math.sqrt(bound * (1 - bound) / total), abs=1e-9
        )


def test_wilson_level() -> None:
    assert wilson(5, 10, level=0.5).low > wilson(5, 10, level=0.99).low


def outcomes(both: int, lost: int, gained: int, neither: int) -> tuple[list, list]:
    before = [True] * (both + lost) + [False] * (gained + neither)
    after = [True] * both + [False] * lost + [True] * gained + [False] * neither
    return before, after


def test_paired_difference_published() -> None:
    """Altman and others, Statistics with Confidence (2000), table 6.2."""
    found = paired_difference(*outcomes(both=14, lost=0, gained=5, neither=22))
    assert found.value == pytest.approx(5 / 41)
    assert (round(found.low, 3), round(found.high, 3)) == (0.011, 0.226)


counts = st.integers(0, 60)


@given(counts, counts, counts, counts)
def test_paired_difference_is_antisymmetric(a: int, b: int, c: int, d: int) -> None:
    if a + b + c + d == 0:
        return
    before, after = outcomes(a, b, c, d)
    there, back = paired_difference(before, after), paired_difference(after, before)
    assert there.value == pytest.approx(-back.value)
    assert there.low == pytest.approx(-back.high)
    assert -1 <= there.low <= there.value <= there.high <= 1


def test_pairs_that_agree_narrow_the_interval() -> None:
    paired = paired_difference(*outcomes(50, 2, 2, 50))
    crossed = paired_difference(*outcomes(26, 26, 26, 26))
    assert paired.value == crossed.value == 0.0
    assert paired.high - paired.low < 0.5 * (crossed.high - crossed.low)


def test_paired_difference_covers_the_truth() -> None:
    generator = np.random.default_rng(0)
    shares = np.array([0.25, 0.15, 0.05, 0.55])
    truth = shares[2] - shares[1]
    tables = generator.multinomial(100, shares, size=2000)
    found = [paired_difference(*outcomes(*map(int, table))) for table in tables]
    covered = np.mean([one.low <= truth <= one.high for one in found])
    assert 0.94 < covered < 0.98


def test_bootstrap_is_the_percentile_of_resampled_ratios() -> None:
    generator = np.random.default_rng(1)
    sizes = generator.integers(1, 9, size=60).astype(float)
    totals = sizes * generator.normal(2.0, 0.5, size=60)
    found = bootstrap_mean(totals, sizes, resamples=20_000)
    picks = np.random.default_rng(2).integers(0, 60, size=(20_000, 60))
    means = totals[picks].sum(axis=1) / sizes[picks].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    assert found.value == pytest.approx(totals.sum() / sizes.sum())
    assert found.low == pytest.approx(low, abs=0.01)
    assert found.high == pytest.approx(high, abs=0.01)


def test_bootstrap_covers_the_truth() -> None:
    generator = np.random.default_rng(3)
    samples = generator.exponential(1.0, size=(400, 80))
    found = [bootstrap_mean(sample, resamples=500) for sample in samples]
    covered = np.mean([one.low <= 1.0 <= one.high for one in found])
    assert 0.90 < covered < 0.97


def test_bootstrap_repeats() -> None:
    values = np.arange(20.0)
    first, again = bootstrap_mean(values), bootstrap_mean(values)
    assert first == again != bootstrap_mean(values, seed=1)


def test_groups_are_drawn_whole() -> None:
    values = np.random.default_rng(4).normal(size=30)
    copies = np.repeat(values, 5)
    groups = np.repeat(np.arange(30), 5)
    alone, grouped = bootstrap_mean(values), bootstrap_mean(copies, groups=groups)
    assert grouped.low == pytest.approx(alone.low)
    assert grouped.high == pytest.approx(alone.high)
    careless = bootstrap_mean(copies)
    assert careless.high - careless.low < 0.6 * (grouped.high - grouped.low)


def test_map() -> None:
    assert Estimate(1.0, 0.0, 2.0).map(lambda x: 2 * x) == Estimate(2.0, 0.0, 4.0)


@pytest.mark.parametrize(
    "call",
    [
        lambda: wilson(3, 2),
        lambda: wilson(-1, 2),
        lambda: wilson(0, 0),
        lambda: wilson(1, 2, level=1.0),
        lambda: paired_difference([], []),
        lambda: paired_difference([True], [True, False]),
        lambda: bootstrap_mean([]),
        lambda: bootstrap_mean([1.0], [0.0]),
        lambda: bootstrap_mean([1.0, 2.0], [1.0]),
        lambda: bootstrap_mean([1.0], resamples=0),
        lambda: bootstrap_mean([1.0], level=0.0),
    ],
)
def test_bad_arguments(call: object) -> None:
    with pytest.raises(ArgumentError):
        call()  # type: ignore[operator]
