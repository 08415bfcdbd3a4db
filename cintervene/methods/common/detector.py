# SPDX-License-Identifier: Apache-2.0
"""Linear detectors: logistic regression with a ridge, by Newton's method.

The loss is docs/methods/gate.md (2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cintervene.utils.arrays import Floats

__all__ = ["Detector", "crossed_threshold", "fit_detector"]

Singles = npt.NDArray[np.float32]
ITERATIONS = 12
# Of the loss's gradient, where the iterations end.
TOLERANCE = 1e-5
# Of cross-validation. Neighbours, which may be about one request, are left out
# together.
FOLDS, NEIGHBOURS = 3, 8


@dataclass(frozen=True, eq=False)
class Detector:
    """The logarithm of the odds ``inputs @ weights + bias``.

    Attributes
    ----------
    weights : ndarray, shape (d,)
    bias : float
    """

    weights: Floats
    bias: float


def fit_detector(
    positive: Floats, negatives: Sequence[Floats], ridge: float
) -> Detector:
    """Fit a detector of some inputs among others.

    The inputs to be found weigh as much as all others, and groups of these as much as
    one another.

    Parameters
    ----------
    positive : ndarray, shape (n, d)
    negatives : sequence of ndarray, each of shape (m, d)
        None of them empty.
    ridge : float
        Weight of the squared coefficients of standardised inputs, beside the mean
        loss. Inputs that vary less than the mean are not blown up to the others'
        spread: what they tell is rounding, mostly.
    """
    groups = [positive, *negatives]
    shares = [0.5, *[0.5 / len(negatives)] * len(negatives)]
    inputs = np.concatenate(groups).astype(np.float64)
    sizes = [len(group) for group in groups]
    weights = np.repeat(np.divide(shares, sizes), sizes)
    labels = np.full(len(inputs), -1.0)
    labels[: len(positive)] = 1.0
    mean = weights @ inputs
    variance = weights @ np.square(inputs - mean)
    spread = np.sqrt(variance + variance.mean())
    columns = np.ones((len(inputs), len(mean) + 1), dtype=np.float32)
    columns[:, :-1] = (inputs - mean) / spread
    penalty = np.full(columns.shape[1], ridge)
    penalty[-1] = 0.0
    minimum = _minimise(columns, labels, weights, penalty)
    coefficients = minimum[:-1] / spread
    return Detector(coefficients, float(minimum[-1] - mean @ coefficients))


def crossed_threshold(
    positive: Floats, negatives: Sequence[Floats], shares: Sequence[float], ridge: float
) -> float:
    """Log odds that few of what must not be found reach, where it was not fitted to.

    Parameters
    ----------
    positive, negatives, ridge
        See `fit_detector`.
    shares : sequence of float
        Of each of the negatives, how many may reach it.

    Returns
    -------
    float
        0 where there are too few inputs to leave some of them out.
    """
    groups = (positive, *negatives)
    parts = [np.arange(len(group)) // NEIGHBOURS % FOLDS for group in groups]
    odds = [np.zeros(len(group)) for group in groups]
    for fold in range(FOLDS):
        kept = [g[part != fold] for g, part in zip(groups, parts, strict=True)]
        if not all(map(len, kept)):
            continue
        fitted = fit_detector(kept[0], kept[1:], ridge)
        for group, part, found in zip(groups, parts, odds, strict=True):
            here = part == fold
            found[here] = group[here] @ fitted.weights + fitted.bias
    reached = zip(odds[1:], shares, strict=True)
    return max(float(np.quantile(found, 1.0 - share)) for found, share in reached)


def _minimise(
    columns: Singles, labels: Floats, weights: Floats, penalty: Floats
) -> Floats:
    """The coefficients of least weighted logistic loss and penalty."""
    point = np.zeros(columns.shape[1])
    for _ in range(ITERATIONS):
        # Clipped where exp would overflow; the derivative is 0 there anyway.
        margins = np.clip(labels * (columns @ _single(point)), -500.0, 500.0)
        wrong = 1.0 / (1.0 + np.exp(margins))
        pull = columns.T @ _single(weights * labels * wrong)
        slope = penalty * point - pull
        if np.abs(slope).max() < TOLERANCE:
            break
        steepness = _single(np.sqrt(weights * wrong * (1.0 - wrong)))
        scaled = columns * steepness[:, None]
        curvature = (scaled.T @ scaled).astype(np.float64)
        # Where classes are separated the curvature fades away; keep it invertible.
        curvature[np.diag_indices_from(curvature)] += penalty + 1e-9
        point = point - np.linalg.solve(curvature, slope)
    return point


def _single(values: Floats) -> Singles:
    return values.astype(np.float32)
