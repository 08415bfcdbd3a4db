# SPDX-License-Identifier: Apache-2.0
"""The changes of one layer that are small enough, and steps among them."""

from __future__ import annotations

import math

import numpy as np
import torch

from cintervene.methods.common.output_metric import OutputMetric
from cintervene.models.targets import Target
from cintervene.models.weights import as_floats
from cintervene.solvers.preserve import Preserve
from cintervene.solvers.update import LowRankUpdate
from cintervene.utils.arrays import Floats

__all__ = ["LayerBall"]


class LayerBall:
    """The ball of one layer's changes and the way through it.

    The ball is docs/methods/tsr.md (4), a step (5).

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
        weight = as_floats(target.weight)
        whole = weight.T if target.transposed else weight
        measured = metric.points(whole.T).T
        norm = np.linalg.norm(measured) if preserve is None else preserve.norm(measured)
        self.radius = radius * float(norm)
        self._inertia = inertia
        shape = target.d_out, target.d_in
        self._direction, self._response = np.zeros(shape), np.zeros(shape)
        self._slope = self._norm = 0.0
        # In the metric's coordinates: the change, and P times it, whose inner product
        # is the squared norm. Neither P nor its inverse is needed for that.
        self._moved, self._dual = np.zeros(shape), np.zeros(shape)
        self.change = torch.zeros(target.d_in, target.d_out)

    def turn(self, gradient: Floats) -> float:
        """Turn towards a gradient (d_in, d_out); what a step to the rim could gain."""
        self._direction *= self._inertia
        self._direction += (1.0 - self._inertia) * self.metric.directions(gradient).T
        self._response = self._direction
        if self.preserve is not None:
            self._response = self.preserve.solve(self._direction)
        self._slope = _root_product(self._response, self._direction)
        return self.radius * self._slope

    def step(self, length: float) -> None:
        """Take a step of a length in units of the radius."""
        if length > 0.0 and self._slope > 0.0:
            rate = length * self.radius / self._slope
            self._dual -= rate * self._direction
            self._moved -= rate * self._response
            norm = _root_product(self._dual, self._moved)
            inside = min(1.0, self.radius / norm) if norm > 0.0 else 1.0
            self._dual *= inside
            self._moved *= inside
            self._norm = inside * norm
            self.change = torch.from_numpy(self.metric.restored(self._moved.T)).float()

    @property
    def norm(self) -> float:
        """Of the change, in units of the radius."""
        return self._norm / self.radius

    @property
    def update(self) -> LowRankUpdate:
        """The change of the weight after the steps taken so far."""
        d_out, d_in = self._moved.shape
        if d_out <= d_in:
            update = LowRankUpdate(np.eye(d_out), self._moved.copy())
        else:
            update = LowRankUpdate(self._moved, np.eye(d_in))
        return self.metric.restore(update)


def _root_product(x: Floats, y: Floats) -> float:
    """The root of an inner product that is not negative but for rounding."""
    return math.sqrt(max(float(np.vdot(x, y)), 0.0))
