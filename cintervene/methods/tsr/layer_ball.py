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
from cintervene.solvers.projected_gradient import ProjectedGradient
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
        # With all of the inputs' space as rows, displacements are the change itself.
        self._descent = ProjectedGradient(np.eye(target.d_in), self.radius, preserve)
        self._inertia = inertia
        self._direction = self._response = np.zeros((target.d_in, target.d_out))
        self.change = torch.zeros(target.d_in, target.d_out)

    def turn(self, gradient: Floats) -> float:
        """Turn towards a gradient (d_in, d_out); what a step to the rim could gain."""
        steepest = self.metric.directions(gradient)
        inertia = self._inertia
        self._direction = inertia * self._direction + (1.0 - inertia) * steepest
        self._response = self._descent.respond(self._direction)
        slope = float(np.vdot(self._response, self._direction))
        return self.radius * math.sqrt(max(slope, 0.0))

    def step(self, length: float) -> None:
        """Take a step of a length in units of the radius."""
        if length > 0.0:
            change = self._descent.step(
                self._direction, length=length, response=self._response
            )
            self.change = torch.from_numpy(self.metric.directions(change)).float()

    @property
    def norm(self) -> float:
        """Of the change, in units of the radius."""
        return self._descent.norm / self.radius

    @property
    def update(self) -> LowRankUpdate:
        """The change of the weight after the steps taken so far."""
        return self.metric.restore(self._descent.update)
