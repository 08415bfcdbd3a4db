# SPDX-License-Identifier: Apache-2.0
"""Confidence intervals of rates, of means, and of their paired differences.

Sources: E. B. Wilson, "Probable inference, the law of succession, and statistical
inference", JASA 22 (1927); R. G. Newcombe, "Improved confidence intervals for the
difference between binomial proportions based on paired data", Statistics in Medicine 17
(1998), method 10; B. Efron, "Bootstrap methods: another look at the jackknife", Annals
of Statistics 7 (1979), percentile intervals.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from cintervene.errors import ArgumentError

__all__ = ["LEVEL", "Estimate", "bootstrap_mean", "paired_difference", "wilson"]

LEVEL = 0.95
RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number and its confidence interval.

    Attributes
    ----------
    value, low, high : float
    """

    value: float
    low: float
    high: float

    def map(self, function: Callable[[float], float]) -> Estimate:
        """Apply an increasing function, which maps quantiles to quantiles."""
        return Estimate(function(self.value), function(self.low), function(self.high))


def wilson(hits: int, total: int, level: float = LEVEL) -> Estimate:
    """Rate of a binary outcome with Wilson's score interval.

    Parameters
    ----------
    hits, total : int
        0 <= hits <= total, total at least 1.
    level : float, default 0.95

    Raises
    ------
    ArgumentError
        The counts or the level are out of range.
    """
    if not 0 <= hits <= total or total < 1:
        raise ArgumentError(
            f"hits, total: got {hits} of {total}, expected 0 <= hits <= total and "
            "total >= 1; give counts"
        )
    z = _quantile(level)
    rate = hits / total
    shrink = 1.0 + z * z / total
    centre = (rate + z * z / (2 * total)) / shrink
    half = z / shrink * math.sqrt(rate * (1 - rate) / total + (z / (2 * total)) ** 2)
    # Exact at the ends, where rounding would leave the unit interval.
    low = 0.0 if hits == 0 else centre - half
    high = 1.0 if hits == total else centre + half
    return Estimate(rate, low, high)


def paired_difference(
    before: npt.ArrayLike, after: npt.ArrayLike, level: float = LEVEL
) -> Estimate:
    """Rate after minus rate before of the same items, with Newcombe's interval.

    Wilson's intervals of the two rates are combined with the correlation of the pairs,
    so that items that did not change narrow the interval.

    Parameters
    ----------
    before, after : array_like of bool, shape (n,)
        Outcome of each item.
    level : float, default 0.95

    Raises
    ------
    ArgumentError
        There are no items, the shapes differ, or the level is out of range.
    """
    x, y = np.asarray(before, dtype=bool), np.asarray(after, dtype=bool)
    if x.shape != y.shape or x.ndim != 1 or x.size == 0:
        raise ArgumentError(
            f"before, after: got shapes {x.shape} and {y.shape}, expected one outcome "
            "each for the same items, at least one; give two vectors of the same length"
        )
    old = wilson(int(x.sum()), x.size, level)
    new = wilson(int(y.sum()), y.size, level)
    phi = _correlation(x, y)
    drop, rise = old.value - old.low, old.high - old.value
    fall, climb = new.value - new.low, new.high - new.value
    down = math.sqrt(max(fall**2 - 2 * phi * fall * rise + rise**2, 0.0))
    up = math.sqrt(max(climb**2 - 2 * phi * climb * drop + drop**2, 0.0))
    change = new.value - old.value
    return Estimate(change, change - down, change + up)


def bootstrap_mean(
    totals: npt.ArrayLike,
    sizes: npt.ArrayLike | None = None,
    *,
    groups: npt.ArrayLike | None = None,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Mean over items, each of some size, with a percentile bootstrap interval.

    The mean is ``sum(totals) / sum(sizes)``. Whole items are drawn with replacement, or
    whole groups of them: several answers with the same word, say, are not independent.
    The same arguments give the same interval.

    Parameters
    ----------
    totals : array_like, shape (n,)
        Sum over each item's parts. For a paired comparison, of the differences.
    sizes : array_like, shape (n,), optional
        Number of parts of each item; default 1.
    groups : array_like of int, shape (n,), optional
        Items of one group are drawn together; default: every item is its own group.
    level : float, default 0.95
    resamples : int, default 2000
    seed : int, default 0
        Of a random generator that is used here only.

    Raises
    ------
    ArgumentError
        There are no items, the shapes differ, a size is not positive, or the level or
        number of resamples is out of range.
    """
    sums = np.asarray(totals, dtype=np.float64)
    counts = np.ones_like(sums) if sizes is None else np.asarray(sizes, np.float64)
    if sums.ndim != 1 or sums.size == 0 or counts.shape != sums.shape:
        raise ArgumentError(
            f"totals, sizes: got shapes {sums.shape} and {counts.shape}, expected two "
            "vectors of the same length, at least 1; give one size for each total"
        )
    if not np.all(counts > 0):
        raise ArgumentError(
            f"sizes: got {counts.min():g}, expected positive numbers; leave it out"
        )
    if resamples < 1:
        raise ArgumentError(
            f"resamples: got {resamples}, expected at least 1; {RESAMPLES} is usual"
        )
    tail = _tail(level)
    mean = float(sums.sum() / counts.sum())
    if groups is not None:
        _, index = np.unique(np.asarray(groups), return_inverse=True)
        sums = np.bincount(index, sums).astype(np.float64)
        counts = np.bincount(index, counts).astype(np.float64)
    drawn = _draws(sums.size, resamples, seed)
    means = (drawn @ sums) / (drawn @ counts)
    low, high = np.quantile(means, [tail, 1 - tail])
    return Estimate(mean, float(low), float(high))


def _correlation(x: npt.NDArray[np.bool_], y: npt.NDArray[np.bool_]) -> float:
    """Phi coefficient of paired outcomes, with Newcombe's continuity correction."""
    both, neither = int((x & y).sum()), int((~x & ~y).sum())
    lost, gained = int((x & ~y).sum()), int((~x & y).sum())
    margins = (both + lost) * (both + gained) * (neither + lost) * (neither + gained)
    if margins == 0:
        return 0.0
    product = float(both * neither - lost * gained)
    if product > 0:
        product = max(product - x.size / 2, 0.0)
    return product / math.sqrt(margins)


def _draws(items: int, resamples: int, seed: int) -> npt.NDArray[Any]:
    """How often each item is drawn, shape (resamples, items)."""
    generator = np.random.default_rng(seed)
    even = np.full(items, 1.0 / items)
    return generator.multinomial(items, even, size=resamples).astype(np.float64)


def _tail(level: float) -> float:
    if not 0.0 < level < 1.0:
        raise ArgumentError(
            f"level: got {level}, expected a number between 0 and 1, such as 0.95"
        )
    return (1.0 - level) / 2


def _quantile(level: float) -> float:
    return NormalDist().inv_cdf(1.0 - _tail(level))
