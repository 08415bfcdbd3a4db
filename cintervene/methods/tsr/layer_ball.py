# SPDX-License-Identifier: Apache-2.0
"""The changes of one layer that are small enough, and steps among them."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from cintervene.methods.common.output_metric import OutputMetric
from cintervene.models.targets import Target
from cintervene.models.weights import as_floats
from cintervene.solvers.preserve import Preserve
from cintervene.solvers.update import LowRankUpdate
from cintervene.utils.arrays import Floats

__all__ = ["LayerBall"]

# Outputs, and inputs, of which some arrays are held at a time beside those of all.
OUTPUTS, INPUTS = 256, 1024


class LayerBall:
    """The ball of one layer's changes and the way through it.

    The ball is docs/methods/tsr.md (4), a step (5). Of a matrix (d_out, d_in) it holds
    two in float64 and one in float32: the response ``D P^-1`` to the direction D, which
    follows from the response before and that to the gradient, the change in the
    metric's coordinates, and the change. Neither D nor the change times P is formed:
    their products with the others, which are all that is asked of them, follow from
    those before.

    Parameters
    ----------
    target : Target
    preserve : Preserve or None
        Measures the change by the inputs that it must not move; None by its plain norm.
    metric : OutputMetric
        And by how much its outputs matter.
    radius : float
        Relative to the weight's norm.
    inertia : float
        Weight of the gradients before in the direction of a step.
    """

    def __init__(
        self,
        target: Target,
        preserve: Preserve | None,
        metric: OutputMetric,
        radius: float,
        inertia: float,
    ) -> None:
        self.target, self.preserve, self.metric = target, preserve, metric
        measured = _measured(target, metric)
        norm = np.linalg.norm(measured) if preserve is None else preserve.norm(measured)
        self.radius = radius * float(norm)
        self._inertia = inertia
        shape = target.d_out, target.d_in
        self._response, self._moved = np.zeros(shape), np.zeros(shape)
        # Inner products: of the direction with its response and with the change, and
        # of the change with P times it, which is its squared norm.
        self._slope_square = self._along = self._square = 0.0
        self.change = torch.zeros(target.d_in, target.d_out)

    def turn(self, gradient: Tensor) -> float:
        """Turn towards a gradient (d_in, d_out); what a step to the rim could gain."""
        old, new = self._inertia, 1.0 - self._inertia
        with_old = with_itself = with_change = 0.0
        for part in _parts(self.target.d_out, OUTPUTS):
            some = self._in_coordinates(gradient, part)
            with_old += float(np.vdot(some, self._response[part]))
            with_change += float(np.vdot(some, self._moved[part]))
            answer = some if self.preserve is None else self.preserve.solve(some)
            with_itself += float(np.vdot(some, answer))
            self._response[part] *= old
            self._response[part] += new * answer
        self._slope_square *= old**2
        self._slope_square += 2.0 * old * new * with_old + new**2 * with_itself
        self._along = old * self._along + new * with_change
        return self.radius * self._slope

    def step(self, length: float) -> None:
        """Take a step of a length in units of the radius."""
        if length > 0.0 and self._slope > 0.0:
            rate = length * self.radius / self._slope
            self._square += rate * (rate * self._slope_square - 2.0 * self._along)
            self._along -= rate * self._slope_square
            norm = _root(self._square)
            inside = min(1.0, self.radius / norm) if norm > 0.0 else 1.0
            self._along *= inside
            self._square *= inside**2
            for part in _parts(self.target.d_out, OUTPUTS):
                self._moved[part] -= rate * self._response[part]
                self._moved[part] *= inside
            for part in _parts(self.target.d_in, INPUTS):
                restored = self.metric.restored(self._moved[:, part].T)
                self.change[part] = torch.from_numpy(restored)

    @property
    def norm(self) -> float:
        """Of the change, in units of the radius."""
        return _root(self._square) / self.radius

    @property
    def update(self) -> LowRankUpdate:
        """The change of the weight after the steps taken so far."""
        d_out, d_in = self._moved.shape
        if d_out <= d_in:
            update = LowRankUpdate(np.eye(d_out), self._moved.copy())
        else:
            update = LowRankUpdate(self._moved, np.eye(d_in))
        return self.metric.restore(update)

    @property
    def _slope(self) -> float:
        return _root(self._slope_square)

    def _in_coordinates(self, gradient: Tensor, outputs: slice) -> Floats:
        """A gradient (d_in, d_out) in the metric's coordinates, of some outputs."""
        rows = np.empty((outputs.stop - outputs.start, self.target.d_in))
        for part in _parts(self.target.d_in, INPUTS):
            rows[:, part] = self.metric.directions(as_floats(gradient[part]), outputs).T
        return rows


def _measured(target: Target, metric: OutputMetric) -> Floats:
    """A target's matrix (d_out, d_in) in the metric's coordinates."""
    weight = target.weight.detach()
    columns = weight if target.transposed else weight.T
    measured = np.empty((target.d_out, target.d_in))
    for part in _parts(target.d_in, INPUTS):
        measured[:, part] = metric.points(as_floats(columns[part])).T
    return measured


def _parts(size: int, most: int) -> Iterator[slice]:
    for start in range(0, size, most):
        yield slice(start, min(start + most, size))


def _root(square: float) -> float:
    """Of what is not negative but for rounding."""
    return math.sqrt(max(square, 0.0))
