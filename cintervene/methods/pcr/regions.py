# SPDX-License-Identifier: Apache-2.0
"""Feasible regions of one layer's outputs, and the least change that reaches them.

They are the constraints of docs/methods/pcr.md (1) for whole models: half-spaces of
tokens (8), balls (12) and half-spaces between means (13).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from cintervene.activations.layer_stream import Captured
from cintervene.methods.common.output_metric import OutputMetric
from cintervene.methods.pcr.constraints import ConstraintIndex, TokenConstraintIndex
from cintervene.models.weights import as_floats
from cintervene.solvers.pcr import pcr_measured
from cintervene.solvers.problem import MeasuredInputs
from cintervene.solvers.solution import Solution
from cintervene.utils.arrays import Floats

__all__ = ["Balls", "Differences", "HalfSpaces", "Points", "Region"]


class Region(Protocol):
    """Constraints on the outputs of one layer."""

    def solve(
        self, inputs: MeasuredInputs, amount: Floats, slack: float, method: str
    ) -> Solution:
        """Find the least change of the layer, in the metric's coordinates.

        The inputs are those of the layer's rows.
        """

    def value(self, displacements: Floats) -> Floats:
        """What shifts of the outputs amount to, one number a constraint.

        The shifts (m, d_out) are in the metric's coordinates, the numbers in the units
        of the requested amount.
        """


class HalfSpaces:
    r"""Each token's logit, as far as this layer decides it, shall fall by an amount.

    docs/methods/pcr.md (8): ``u_t . (o_j + delta h_j) <= u_t . o_j - amount s_j`` for
    row j and token t, with u_t the direction of the layer's output that raises the
    token's logit and s_j what the norms behind the layer divide row j by. A token that
    shall rise has the opposite direction.

    Parameters
    ----------
    constraints : TokenConstraintIndex
    rows : Captured
        The layer's inputs and outputs at the constrained rows.
    directions : ndarray, shape (k, d_out)
        Direction of each column, opposite for a token that shall rise; in the metric's
        coordinates.
    scale : ndarray, shape (m,)
        What the norms behind the layer divide each row by.
    metric : OutputMetric
    """

    def __init__(
        self,
        constraints: TokenConstraintIndex,
        rows: Captured,
        directions: Floats,
        scale: Floats,
        metric: OutputMetric,
    ) -> None:
        self._constraints, self._rows, self._metric = constraints, rows, metric
        self._directions, self._scale = directions, scale

    def solve(
        self, inputs: MeasuredInputs, amount: Floats, slack: float, method: str
    ) -> Solution:
        """Find the least change; `amount` in nats.

        Tokens that have moved by more than was requested are left alone.
        """
        outputs = self._metric.points(as_floats(self._rows.outputs))
        levels = self._along(outputs)
        scale = self._scale[self._constraints.rows]
        drop = np.where(amount > 0.0, amount * scale, -np.inf)
        offsets = self._constraints.scatter(levels - drop, np.inf)
        return pcr_measured(
            inputs,
            outputs,
            None,
            0.0,
            slack=slack,
            halfspaces=(self._directions, offsets),
            method=method,
        )

    def value(self, displacements: Floats) -> Floats:
        """Nats by which each logit moves the way it shall, to first order."""
        scale = self._scale[self._constraints.rows]
        nats: Floats = -self._along(displacements) / scale
        return nats

    def _along(self, points: Floats) -> Floats:
        """Product of each constraint's row with its direction."""
        rows = points[self._constraints.rows]
        directions = self._directions[self._constraints.columns]
        products: Floats = np.einsum("pd,pd->p", rows, directions)
        return products


@dataclass(frozen=True, eq=False)
class Points:
    """Where the base model's outputs of one layer are.

    Attributes
    ----------
    outputs : ndarray, shape (m, d_out)
        At the constrained rows.
    benign : ndarray, shape (d_out,)
        Mean of benign outputs.
    """

    outputs: Floats
    benign: Floats

    def centres(self, constraints: ConstraintIndex) -> Floats:
        """Mean outputs (k, d_out) of the rows of each column."""
        members = constraints.scatter(np.ones(len(constraints.rows)), 0.0)
        means: Floats = (members / members.sum(axis=0)).T @ self.outputs
        return means


class Balls:
    r"""Outputs keep a distance from the mean output of their group.

    docs/methods/pcr.md (12): ``||o_j + delta h_j - c_g|| >= amount d_g`` with c_g the
    base model's mean over the rows of group g, those about to say a token for instance,
    and d_g their root mean squared distance from it (the paper's reading).

    Parameters
    ----------
    constraints : ConstraintIndex
    rows : Captured
        The layer's inputs and outputs at the constrained rows.
    points : Points
    metric : OutputMetric
    """

    def __init__(
        self,
        constraints: ConstraintIndex,
        rows: Captured,
        points: Points,
        metric: OutputMetric,
    ) -> None:
        self._constraints, self._rows = constraints, rows
        self._outputs = metric.points(as_floats(rows.outputs))
        base = metric.points(points.outputs)
        self._centres = metric.points(points.centres(constraints))
        squares, columns = np.square(self._distances(base)), constraints.columns
        typical = np.bincount(columns, squares) / np.bincount(columns)
        # A group of one row is its own mean: take how far all outputs lie apart.
        overall = np.square(base - base.mean(axis=0)).sum(axis=1).mean()
        self._typical = np.sqrt(np.where(typical > 0.0, typical, overall))

    def solve(
        self, inputs: MeasuredInputs, amount: Floats, slack: float, method: str
    ) -> Solution:
        """Find the least change; `amount` is the radius in typical distances."""
        radius = np.maximum(amount, 0.0) * self._typical[self._constraints.columns]
        return pcr_measured(
            inputs,
            self._outputs,
            self._centres,
            self._constraints.scatter(radius, 0.0),
            slack=slack,
            method=method,
        )

    def value(self, displacements: Floats) -> Floats:
        """Distance from the mean of each constraint's group, in typical distances."""
        distances = self._distances(self._outputs + displacements)
        relative: Floats = distances / self._typical[self._constraints.columns]
        return relative

    def _distances(self, outputs: Floats) -> Floats:
        centres = self._centres[self._constraints.columns]
        differences = outputs[self._constraints.rows] - centres
        distances: Floats = np.linalg.norm(differences, axis=1)
        return distances


class Differences:
    r"""Outputs go from the mean output of their group towards the benign mean, or past.

    docs/methods/pcr.md (13): ``u_g . (o_j + delta h_j - c_g) <= -amount ||c_g - b||``
    with c_g the base model's mean over the rows of group g, b its mean over benign
    rows, and u_g the unit vector from b to c_g: 0 is the concept, 1 the benign mean.

    Parameters
    ----------
    constraints, rows, points, metric
        As for `Balls`.
    """

    def __init__(
        self,
        constraints: ConstraintIndex,
        rows: Captured,
        points: Points,
        metric: OutputMetric,
    ) -> None:
        self._constraints, self._rows = constraints, rows
        self._outputs = metric.points(as_floats(rows.outputs))
        centres = metric.points(points.centres(constraints))
        differences = centres - metric.points(points.benign[None])
        gaps = np.linalg.norm(differences, axis=1)
        self._gaps = np.maximum(gaps, np.finfo(float).tiny)
        self._directions = differences / self._gaps[:, None]
        self._levels = np.einsum("gd,gd->g", centres, self._directions)

    def solve(
        self, inputs: MeasuredInputs, amount: Floats, slack: float, method: str
    ) -> Solution:
        """Find the least change; `amount` in distances from concept to benign."""
        columns = self._constraints.columns
        offsets = self._levels[columns] - amount * self._gaps[columns]
        return pcr_measured(
            inputs,
            self._outputs,
            None,
            0.0,
            slack=slack,
            halfspaces=(self._directions, self._constraints.scatter(offsets, np.inf)),
            method=method,
        )

    def value(self, displacements: Floats) -> Floats:
        """How far each output is on the way from the concept to the benign mean."""
        columns = self._constraints.columns
        moved = (self._outputs + displacements)[self._constraints.rows]
        levels = np.einsum("pd,pd->p", moved, self._directions[columns])
        progress: Floats = (self._levels[columns] - levels) / self._gaps[columns]
        return progress
