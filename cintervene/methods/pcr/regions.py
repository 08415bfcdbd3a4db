# SPDX-License-Identifier: Apache-2.0
"""What is forbidden as regions of a layer's outputs, and changes that leave them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

from cintervene.activations.layer_stream import Captured
from cintervene.methods.common.output_metric import (
    OutputMetric,
    TokenStatistics,
    logit_scale,
    token_directions,
)
from cintervene.methods.pcr.constraints import (
    ConstraintIndex,
    TokenConstraintIndex,
)
from cintervene.models.targets import Target
from cintervene.models.unembedding import Unembedding
from cintervene.models.weights import as_floats
from cintervene.solvers.pcr import pcr
from cintervene.solvers.preserve import Preserve
from cintervene.solvers.solution import Solution
from cintervene.utils.arrays import Floats

__all__ = [
    "Balls",
    "Differences",
    "HalfSpaces",
    "Points",
    "Region",
]


class Region(Protocol):
    """Constraints on the outputs of one layer."""

    def solve(
        self, preserve: Preserve, amount: Floats, slack: float, method: str
    ) -> Solution:
        """Find the least change of the layer, in the metric's coordinates."""

    def value(self, displacements: Floats) -> Floats:
        """What shifts of the outputs amount to, one number a pair.

        The shifts (m, d_out) are in the metric's coordinates, the numbers in the units
        of the amount asked for.
        """


class HalfSpaces:
    r"""Each token's logit, as far as this layer decides it, shall fall by an amount.

    Row j, token t: ``u_t . (o_j + delta h_j) <= u_t . o_j - amount s_j`` with u_t the
    direction of the layer's output that raises the token's logit and s_j what the norms
    behind the layer divide row j by. A token that shall rise has the opposite
    direction.

    Parameters
    ----------
    pairs : TokenConstraintIndex
    rows : Captured
        The layer's inputs and outputs at the rows of `pairs`.
    target : Target
    state : Tensor, shape (m, hidden)
        What the final norm reads at those rows.
    unembedding : Unembedding
    statistics : TokenStatistics
        Benign next-token distributions.
    contrast : bool
        Subtract from each direction the mean one of what the model says on benign text.
    metric : OutputMetric
    """

    def __init__(
        self,
        pairs: TokenConstraintIndex,
        rows: Captured,
        target: Target,
        state: Tensor,
        unembedding: Unembedding,
        statistics: TokenStatistics,
        contrast: bool,
        metric: OutputMetric,
    ) -> None:
        self._pairs, self._rows, self._metric = pairs, rows, metric
        directions = token_directions(
            pairs.tokens.tolist(), target, unembedding, statistics if contrast else None
        )
        self._directions = metric.directions(directions * pairs.signs[:, None])
        self._scale = logit_scale(target, unembedding, state, rows.outputs)

    def solve(
        self, preserve: Preserve, amount: Floats, slack: float, method: str
    ) -> Solution:
        """Find the least change; `amount` in nats.

        Tokens that have moved by more than was asked for are left alone.
        """
        outputs = self._metric.points(as_floats(self._rows.outputs))
        own = self._along(outputs)
        drop = np.where(amount > 0.0, amount * self._scale[self._pairs.rows], -np.inf)
        return pcr(
            self._rows.inputs,
            outputs,
            None,
            0.0,
            preserve=preserve,
            slack=slack,
            halfspaces=(self._directions, self._pairs.scatter(own - drop, np.inf)),
            method=method,
        )

    def value(self, displacements: Floats) -> Floats:
        """Nats by which each pair's logit moves the way asked for, to first order."""
        nats: Floats = -self._along(displacements) / self._scale[self._pairs.rows]
        return nats

    def _along(self, points: Floats) -> Floats:
        """Products of the pairs' rows with the pairs' directions."""
        products: Floats = np.einsum(
            "pd,pd->p", points[self._pairs.rows], self._directions[self._pairs.columns]
        )
        return products


@dataclass(frozen=True, eq=False)
class Points:
    """Where the base model's outputs of one layer are.

    Attributes
    ----------
    outputs : ndarray, shape (m, d_out)
        At the rows of the pairs.
    benign : ndarray, shape (d_out,)
        Mean of benign outputs.
    """

    outputs: Floats
    benign: Floats

    def centres(self, pairs: ConstraintIndex) -> Floats:
        """Mean outputs (k, d_out) of the rows of each column."""
        members = pairs.scatter(np.ones(len(pairs.rows)), 0.0)
        means: Floats = (members / members.sum(axis=0)).T @ self.outputs
        return means


class Balls:
    r"""Outputs keep a distance from the mean output of their group.

    ``||o_j + delta h_j - c_g|| >= amount d_g`` with c_g the base model's mean over the
    rows of group g, those about to say a token for instance, and d_g their root mean
    squared distance from it (the paper's reading).

    Parameters
    ----------
    pairs : ConstraintIndex
    rows : Captured
        The layer's inputs and outputs at the rows of `pairs`.
    points : Points
    metric : OutputMetric
    """

    def __init__(
        self,
        pairs: ConstraintIndex,
        rows: Captured,
        points: Points,
        metric: OutputMetric,
    ) -> None:
        self._pairs, self._rows = pairs, rows
        self._outputs = metric.points(as_floats(rows.outputs))
        base = metric.points(points.outputs)
        self._centres = metric.points(points.centres(pairs))
        squares = np.square(self._distances(base))
        typical = np.bincount(pairs.columns, squares) / np.bincount(pairs.columns)
        # A token seen once sits on its own mean: take how far the outputs lie apart.
        overall = np.square(base - base.mean(axis=0)).sum(axis=1).mean()
        self._typical = np.sqrt(np.where(typical > 0.0, typical, overall))

    def solve(
        self, preserve: Preserve, amount: Floats, slack: float, method: str
    ) -> Solution:
        """Find the least change; `amount` is the radius in typical distances."""
        radius = np.maximum(amount, 0.0) * self._typical[self._pairs.columns]
        return pcr(
            self._rows.inputs,
            self._outputs,
            self._centres,
            self._pairs.scatter(radius, 0.0),
            preserve=preserve,
            slack=slack,
            method=method,
        )

    def value(self, displacements: Floats) -> Floats:
        """Distance from each pair's point, in typical distances."""
        distances = self._distances(self._outputs + displacements)
        relative: Floats = distances / self._typical[self._pairs.columns]
        return relative

    def _distances(self, outputs: Floats) -> Floats:
        apart = outputs[self._pairs.rows] - self._centres[self._pairs.columns]
        lengths: Floats = np.linalg.norm(apart, axis=1)
        return lengths


class Differences:
    r"""Outputs go from the mean output of their group towards the benign mean, or past.

    ``u_g . (o_j + delta h_j - c_g) <= -amount ||c_g - b||`` with c_g the base model's
    mean over the rows of group g, b its mean over benign rows, and u_g the unit vector
    from b to c_g: 0 is the concept, 1 the benign mean.

    Parameters
    ----------
    pairs, rows, points, metric
        As for `Balls`.
    """

    def __init__(
        self,
        pairs: ConstraintIndex,
        rows: Captured,
        points: Points,
        metric: OutputMetric,
    ) -> None:
        self._pairs, self._rows = pairs, rows
        self._outputs = metric.points(as_floats(rows.outputs))
        centres = metric.points(points.centres(pairs))
        apart = centres - metric.points(points.benign[None])
        gaps = np.linalg.norm(apart, axis=1)
        self._gaps = np.maximum(gaps, np.finfo(float).tiny)
        self._directions = apart / self._gaps[:, None]
        self._levels = np.einsum("gd,gd->g", centres, self._directions)

    def solve(
        self, preserve: Preserve, amount: Floats, slack: float, method: str
    ) -> Solution:
        """Find the least change; `amount` in distances from concept to benign."""
        columns = self._pairs.columns
        offsets = self._levels[columns] - amount * self._gaps[columns]
        return pcr(
            self._rows.inputs,
            self._outputs,
            None,
            0.0,
            preserve=preserve,
            slack=slack,
            halfspaces=(self._directions, self._pairs.scatter(offsets, np.inf)),
            method=method,
        )

    def value(self, displacements: Floats) -> Floats:
        """How far each pair's output is from the concept towards the benign mean."""
        columns = self._pairs.columns
        moved = (self._outputs + displacements)[self._pairs.rows]
        along = np.einsum("pd,pd->p", moved, self._directions[columns])
        way: Floats = (self._levels[columns] - along) / self._gaps[columns]
        return way
