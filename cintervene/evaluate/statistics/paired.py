# SPDX-License-Identifier: Apache-2.0
"""Tests and agreement of paired binary outcomes.

Sources: Q. McNemar, "Note on the sampling error of the difference between correlated
proportions or percentages", Psychometrika 12 (1947), with the binomial distribution
instead of its approximation; J. Cohen, "A coefficient of agreement for nominal scales",
Educational and Psychological Measurement 20 (1960).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import comb
from typing import Literal

import numpy as np
import numpy.typing as npt

from cintervene.errors import ArgumentError
from cintervene.evaluate.statistics.intervals import Estimate, paired_difference, wilson

__all__ = [
    "Agreement", "Change", "Confusion", "agreement", "confusion", "exact_mcnemar",
    "rate_change",
]  # fmt: skip

RESAMPLES = 2000


def rate_change(before: npt.NDArray[np.bool_], after: npt.NDArray[np.bool_]) -> Change:
    """Rates of a binary outcome before and after, paired by item.

    Rates have Wilson's intervals, their difference Newcombe's.

    Parameters
    ----------
    before, after : ndarray of bool, shape (n,)

    Raises
    ------
    ArgumentError
        There are no items, or not as many before as after.
    """
    effect = paired_difference(before, after)
    old, new = (wilson(int(x.sum()), x.size) for x in (before, after))
    return Change(old, new, effect, "difference")


def exact_mcnemar(gained: int, lost: int) -> float:
    """Two-sided p of the exact McNemar test.

    Parameters
    ----------
    gained, lost : int
        Items that changed one way and the other; items that did not change carry no
        information about the direction.

    Raises
    ------
    ArgumentError
        A count is negative.
    """
    if gained < 0 or lost < 0:
        raise ArgumentError(
            f"gained, lost: got {gained} and {lost}, expected counts of at least 0; "
            "give numbers of items"
        )
    changed = gained + lost
    tail = sum(comb(changed, k) for k in range(min(gained, lost) + 1))
    return float(min(Fraction(2 * tail, 2**changed), Fraction(1)))


@dataclass(frozen=True, slots=True)
class Confusion:
    """Confusion matrix of a judge's decisions against the truth.

    Attributes
    ----------
    hits, misses, false_alarms, rejections : int
        True positives, false negatives, false positives and true negatives.
    """

    hits: int
    misses: int
    false_alarms: int
    rejections: int

    @property
    def accuracy(self) -> float:
        """Share of the items judged correctly."""
        return (self.hits + self.rejections) / self._total

    @property
    def kappa(self) -> float:
        """Cohen's kappa: agreement beyond chance; nan where all items are alike."""
        judged = (self.hits + self.false_alarms) / self._total
        true = (self.hits + self.misses) / self._total
        chance = judged * true + (1 - judged) * (1 - true)
        return (self.accuracy - chance) / (1 - chance) if chance < 1 else float("nan")

    @property
    def _total(self) -> int:
        return self.hits + self.misses + self.false_alarms + self.rejections


def confusion(truth: npt.ArrayLike, judged: npt.ArrayLike) -> Confusion:
    """Count how `judged` agrees with `truth`; both of bool, shape (n,), n at least 1.

    Raises
    ------
    ArgumentError
        The shapes differ, or there are no items.
    """
    x, y = np.asarray(truth, dtype=bool), np.asarray(judged, dtype=bool)
    if x.shape != y.shape or x.ndim != 1 or x.size == 0:
        raise ArgumentError(
            f"truth, judged: got shapes {x.shape} and {y.shape}, expected one of each "
            "for the same items, at least one; give two vectors of the same length"
        )
    cells = (x & y, x & ~y, ~x & y, ~x & ~y)
    return Confusion(*(int(cell.sum()) for cell in cells))


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far two judges agree on the same items.

    Attributes
    ----------
    items : int
    agree : Estimate
        Share of the items, with Wilson's interval.
    kappa : Estimate
        Cohen's, with a percentile interval of 2,000 resamples; nan where both judges
        say the same of all items.
    only_first, only_second : int
        Items of which one says yes and the other no.
    """

    items: int
    agree: Estimate
    kappa: Estimate
    only_first: int
    only_second: int


def agreement(first: npt.ArrayLike, second: npt.ArrayLike) -> Agreement:
    """Compare two judges; both of bool, shape (n,), n at least 1.

    The same verdicts give the same interval.

    Raises
    ------
    ArgumentError
        The shapes differ, or there are no items.
    """
    found = confusion(first, second)
    cells = [found.hits, found.misses, found.false_alarms, found.rejections]
    total = sum(cells)
    shares = np.array(cells) / total
    drawn = np.random.default_rng(0).multinomial(total, shares, size=RESAMPLES)
    kappas = np.array([Confusion(*map(int, row)).kappa for row in drawn])
    known = kappas[~np.isnan(kappas)]
    low, high = np.quantile(known, [0.025, 0.975]) if known.size else (np.nan, np.nan)
    return Agreement(
        items=total,
        agree=wilson(found.hits + found.rejections, total),
        kappa=Estimate(found.kappa, float(low), float(high)),
        only_first=found.misses,
        only_second=found.false_alarms,
    )


@dataclass(frozen=True, slots=True)
class Change:
    """A measure before and after, and its change.

    Attributes
    ----------
    before, after : Estimate
    effect : Estimate
        After over before, or after minus before, compared item by item.
    kind : {"ratio", "difference"}
        Which of the two.
    """

    before: Estimate
    after: Estimate
    effect: Estimate
    kind: Literal["ratio", "difference"]

    @property
    def certain(self) -> bool:
        """Whether the interval of the effect excludes "no change"."""
        same = 1.0 if self.kind == "ratio" else 0.0
        return not self.effect.low <= same <= self.effect.high
