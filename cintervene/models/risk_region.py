# SPDX-License-Identifier: Apache-2.0
"""Away from the risk region (ARR): the worst prompts count most.

The defence raises the least negative log probability of harmful answers over a set of
prompts, up to a bound beyond which nothing is gained. The minimum over prompts is one
over weights on the simplex: they take projected gradient steps towards the prompts
that are least defended, while the change of the weight takes steps against them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cintervene.models.layer_ball import Floats
from cintervene.models.safe_region import Part, SafeRegion
from cintervene.models.upper import UpperBatch
from cintervene.projections import project_simplex

__all__ = ["RiskRegion"]


class RiskRegion(SafeRegion):
    """The problem of some layers; `SafeRegion` with answers to be left.

    Parameters
    ----------
    *place
        Those of `SafeRegion`; the harmful lessons go on as a harmful answer does.
    nats : float
        How unlikely an answer's tokens shall become, on average.
    """

    # Length of a step of the weights, in units of a uniform weight.
    RATE = 1.0

    def __init__(self, *place: Any, nats: float) -> None:
        super().__init__(*place)
        self.nats = nats
        self.weights = {part: _uniform(part) for part in self.parts}
        self._missing: dict[int, float] = {}

    def objective(self, part: Part, batch: UpperBatch, losses: Tensor) -> Tensor:
        """Weighted shortfall of a batch's lessons from the nats asked for."""
        missing = []
        for lesson in batch.sequences:
            own = (batch.owners == lesson).to(losses.device)
            missing.append(torch.relu(self.nats - losses[own].mean()))
            self._missing[lesson] = float(missing[-1].detach())
        weights = torch.from_numpy(self.weights[part][batch.sequences])
        return (torch.stack(missing) * weights.to(losses.device)).sum()

    def gradients(
        self, part: Part, changes: Sequence[Tensor]
    ) -> tuple[dict[str, float], list[Floats]]:
        """Derivatives for the present weights of prompts, which then take a step."""
        self._missing = {}
        seen, gradients = super().gradients(part, changes)
        missing = np.array([self._missing[i] for i in sorted(self._missing)])
        step = self.RATE / len(missing) * missing / self.nats
        self.weights[part] = project_simplex(self.weights[part] + step)
        return seen | {"worst": self.nats - float(missing.max())}, gradients

    def reached(self, losses: Tensor) -> bool:
        """Whether an answer's tokens have become half as unlikely as asked."""
        return bool(losses.mean() >= self.nats / 2)


def _uniform(part: Part) -> Floats:
    count = len(part.harmful_lessons)
    return np.full(count, 1.0 / count)
