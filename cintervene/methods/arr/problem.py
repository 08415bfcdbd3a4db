# SPDX-License-Identifier: Apache-2.0
"""Away from the risk region (ARR): the worst prompts count most.

The defence raises the least negative log probability of harmful answers over a set of
prompts, up to a bound beyond which nothing is gained. The minimum over prompts is one
over weights on the simplex: they take projected gradient steps towards the prompts
that are least defended, while the change of the weight takes steps against them
(docs/methods/arr.md (2) and (3)). An attack can add prompts to the set on the way: what
it makes of a request under the present change.

Source: arXiv 2510.03567, ARR.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from cintervene.activations.upper_layers import UpperBatch, changed
from cintervene.methods.arr.adversary import Adversary
from cintervene.methods.common.descent import minibatches
from cintervene.methods.common.objectives import by_example
from cintervene.methods.config import DescentConfig
from cintervene.methods.tsr.examples import RefusalExamples
from cintervene.methods.tsr.problem import SafeRegion
from cintervene.models.parts import ModelParts
from cintervene.models.targets import Target
from cintervene.solvers.projections import project_simplex
from cintervene.utils.ranks import deal

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
        Adds prompts to the batch that a step looks at.

    Attributes
    ----------
    weights : list of ndarray
        On the simplex: for each batch the weights of its harmful examples.
    requests : list of list of int
        For each batch the request that each of its harmful examples is about.
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
        numbered = [[i] * len(group) for i, group in enumerate(examples.harmful)]
        self.requests = minibatches(numbered, len(self.batches))
        self.weights = [np.full(len(one), 1.0 / len(one)) for one in self.requests]

    def gradients(
        self, step: int, changes: Sequence[Tensor]
    ) -> tuple[dict[str, float], list[Tensor]]:
        """Derivatives for the present weights of prompts, which then take a step.

        As with `SafeRegion`; metrics have `worst`, too: the nats of the prompt that is
        least defended. The step is docs/methods/arr.md (3).
        """
        number = step % len(self.batches)
        if self._adversary is not None and step % self._adversary.every == 0:
            self._attack(number, step, changes, self._adversary)
        metrics, nats, gradients = self.evaluate(number, changes)
        shortfall = np.maximum(self.nats - nats, 0.0)
        ascent = self.RATE / len(shortfall) * shortfall / self.nats
        self.weights[number] = project_simplex(self.weights[number] + ascent)
        worst = self.nats - float(shortfall.max())
        return metrics | {"worst": worst}, gradients

    def objective(self, number: int, batch: UpperBatch, losses: Tensor) -> Tensor:
        """Weighted shortfall of some examples: docs/methods/arr.md (2)."""
        shortfalls = [
            torch.relu(self.nats - answer_losses.mean())
            for _, answer_losses in by_example(batch, losses)
        ]
        weights = torch.from_numpy(self.weights[number][batch.sequences])
        return (torch.stack(shortfalls) * weights.to(losses.device)).sum()

    def reached(self, losses: Tensor) -> bool:
        """Whether an answer's tokens have become half as unlikely as asked."""
        return bool(losses.mean() >= self.nats / 2)

    def _attack(
        self, number: int, step: int, changes: Sequence[Tensor], adversary: Adversary
    ) -> None:
        """Add what an attack makes of the requests that are least defended."""
        batch, requests = self.batches[number], self.requests[number]
        weights = self.weights[number]
        shares = np.bincount(requests, weights)
        worst = np.argsort(-shares, kind="stable")
        attacked = [int(i) for i in worst if i in requests][: adversary.count]
        placed = [c.to(d) for c, d in zip(changes, batch.devices, strict=True)]
        with changed(batch.targets, placed):
            harder = deal(
                "attacks on requests", attacked,
                lambda request: adversary.harder(
                    request, batch.harmful_examples[requests.index(request)], step
                ),
            )  # fmt: skip
        batch.set_harmful([*batch.harmful_examples, *harder])
        share = np.full(len(harder), weights.mean())
        self.weights[number] = project_simplex(np.concatenate([weights, share]))
        self.requests[number] = requests + attacked
