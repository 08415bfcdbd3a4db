# SPDX-License-Identifier: Apache-2.0
"""Away from the risk region (ARR): the worst prompts count most.

The defence raises the least negative log probability of harmful answers over a set of
prompts, up to a bound beyond which nothing is gained. The minimum over prompts is one
over weights on the simplex: they take projected gradient steps towards the prompts
that are least defended, while the change of the weight takes steps against them. An
attack can add prompts to the set on the way: what it makes of a request under the
present change.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from cintervene.activations.upper_layers import (
    UpperBatch,
    changed,
)
from cintervene.methods.arr.adversary import Adversary
from cintervene.methods.config import DescentConfig
from cintervene.methods.tsr.layer_ball import Floats
from cintervene.methods.tsr.problem import (
    ExampleBatch,
    SafeRegion,
)
from cintervene.models.parts import ModelParts
from cintervene.models.targets import Target
from cintervene.prompts.refusal_examples import RefusalExamples, divided
from cintervene.solvers.projections import project_simplex

__all__ = ["RiskRegion"]


class RiskRegion(SafeRegion):
    """The problem of some layers; `SafeRegion` with answers to be left.

    Parameters
    ----------
    parts, targets, examples, config
        Those of `SafeRegion`; the harmful examples go on as a harmful answer does.
    nats : float
        How unlikely an answer's tokens shall become, on average.
    adversary : Adversary, optional
        Adds prompts of the part that a step looks at.
    """

    # Length of a step of the weights, in units of a uniform weight.
    RATE = 1.0

    def __init__(
        self,
        parts: ModelParts,
        targets: Sequence[Target],
        examples: RefusalExamples,
        config: DescentConfig,
        nats: float,
        adversary: Adversary | None = None,
    ) -> None:
        super().__init__(parts, targets, examples, config)
        self.nats, self._adversary = nats, adversary
        self.weights = {batch: _uniform(batch) for batch in self.batches}
        self._missing: dict[int, float] = {}
        self._steps = 0
        numbered = [[i] * len(group) for i, group in enumerate(examples.harmful)]
        requests = divided(numbered, len(self.batches))
        self._requests = dict(zip(self.batches, requests, strict=True))

    def objective(
        self, examples: ExampleBatch, batch: UpperBatch, losses: Tensor
    ) -> Tensor:
        """Weighted shortfall of a batch's examples from the nats asked for."""
        missing = []
        for example in batch.sequences:
            own = (batch.owners == example).to(losses.device)
            missing.append(torch.relu(self.nats - losses[own].mean()))
            self._missing[example] = float(missing[-1].detach())
        weights = torch.from_numpy(self.weights[examples][batch.sequences])
        return (torch.stack(missing) * weights.to(losses.device)).sum()

    def gradients(
        self, examples: ExampleBatch, changes: Sequence[Tensor]
    ) -> tuple[dict[str, float], list[Floats]]:
        """Derivatives for the present weights of prompts, which then take a step."""
        if self._adversary is not None and self._steps % self._adversary.every == 0:
            self._attack(examples, changes, self._adversary)
        self._steps += 1
        self._missing = {}
        seen, gradients = super().gradients(examples, changes)
        missing = np.array([self._missing[i] for i in sorted(self._missing)])
        step = self.RATE / len(missing) * missing / self.nats
        self.weights[examples] = project_simplex(self.weights[examples] + step)
        return seen | {"worst": self.nats - float(missing.max())}, gradients

    def _attack(
        self, examples: ExampleBatch, changes: Sequence[Tensor], adversary: Adversary
    ) -> None:
        """Add what an attack makes of the requests that are least defended."""
        requests = self._requests[examples]
        shares = np.bincount(requests, self.weights[examples])
        worst = np.argsort(-shares, kind="stable")
        attacked = [int(i) for i in worst if i in requests][: adversary.count]
        placed = [c.to(d) for c, d in zip(changes, examples.devices, strict=True)]
        with changed(examples.targets, placed):
            harder = [
                adversary.harder(
                    one, examples.harmful_examples[requests.index(one)], self._steps
                )
                for one in attacked
            ]
        share = np.full(len(harder), self.weights[examples].mean())
        weights = np.concatenate([self.weights[examples], share])
        examples.teach([*examples.harmful_examples, *harder])
        self.weights[examples] = project_simplex(weights)
        self._requests[examples] = requests + attacked

    def reached(self, losses: Tensor) -> bool:
        """Whether an answer's tokens have become half as unlikely as asked."""
        return bool(losses.mean() >= self.nats / 2)


def _uniform(examples: ExampleBatch) -> Floats:
    count = len(examples.harmful_examples)
    return np.full(count, 1.0 / count)
