# SPDX-License-Identifier: Apache-2.0
"""How much what a model says depends on the inputs and outputs of some projections.

Both sides of a change are measured: `Preserve` on its right by the inputs that must not
be moved, `OutputMetric` on its left by the mean outer product of the outputs'
derivatives of the log probability of sampled answers, which is the Fisher information.
(The product of both is the curvature of K-FAC, Martens and Grosse 2015.)

Where ranks share work, a target is the work of one of them, by its number; all see all
rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from cintervene.activations.upper_layers import UpperBatch, UpperLayers, logits_of
from cintervene.methods.common.objectives import set_loss
from cintervene.methods.common.output_metric import OutputMetric
from cintervene.models.targets import Target
from cintervene.models.unembedding import Unembedding
from cintervene.models.weights import as_floats
from cintervene.solvers.preserve import BenignMoments, Preserve
from cintervene.utils.ranks import is_own

__all__ = ["GradientMetric"]

SEED = 0
# Adding to a matrix of second moments costs a pass over all of it, however few inputs.
CHUNK = 2048


class GradientMetric:
    """Gathers both metrics of some targets.

    Parameters
    ----------
    targets : sequence of Target
    unembedding : Unembedding
    """

    def __init__(self, targets: Sequence[Target], unembedding: Unembedding) -> None:
        self._unembedding = unembedding
        # By the number of each target that is this rank's.
        own = {index: one for index, one in enumerate(targets) if is_own(index)}
        self._moments = {
            index: BenignMoments(target.d_in, in_place=True)
            for index, target in own.items()
        }
        self._waiting: dict[int, list[Tensor]] = {index: [] for index in own}
        self._fisher = {
            index: np.zeros((target.d_out, target.d_out))
            for index, target in own.items()
        }
        self._random = torch.Generator().manual_seed(SEED)

    def count(self, index: int, inputs: Tensor) -> None:
        """Count inputs (n, d_in) of a target as not to be moved, if it is our own."""
        if index not in self._waiting:
            return
        self._waiting[index].append(inputs)
        if sum(map(len, self._waiting[index])) >= CHUNK:
            self._add_waiting(index)

    def _add_waiting(self, index: int) -> None:
        if self._waiting[index]:
            self._moments[index].add(torch.cat(self._waiting[index]).cpu())
            self._waiting[index] = []

    def add_answers(self, upper: UpperLayers) -> None:
        """Count how the wanted rows depend on all tokens behind the prefixes.

        In a `differentiable` context.
        """
        drawn = 0

        def derivatives(number: int, batch: UpperBatch) -> list[Tensor]:
            nonlocal drawn
            # What is drawn for other ranks' batches is drawn here too.
            self._skip(upper.batches[drawn:number])
            drawn = number + 1
            return self._derivatives(upper, batch)

        for _, found in upper.deal("derivatives of answers", derivatives):
            for index, of_target in enumerate(found):
                if index in self._fisher:
                    rows = as_floats(of_target)
                    self._fisher[index] += rows.T @ rows
        self._skip(upper.batches[drawn:])

    def _derivatives(self, upper: UpperLayers, batch: UpperBatch) -> list[Tensor]:
        """Of a sampled answer, by each target's outputs (n, d_out) at the tokens."""
        outputs: list[Tensor] = []

        def watch(_index: int, _inputs: Tensor, changed: Tensor) -> None:
            changed.retain_grad()
            outputs.append(changed)

        logits = logits_of(self._unembedding, upper.states(batch, None, watch))
        likely = torch.softmax(logits.detach().cpu(), dim=-1)
        sampled = torch.multinomial(likely, 1, generator=self._random)
        set_loss(logits, sampled.tolist()).sum().backward()  # type: ignore[no-untyped-call]
        found = []
        for output in outputs:
            assert output.grad is not None
            found.append(output.grad[batch.real.to(output.device)])
        return found

    def _skip(self, batches: Sequence[UpperBatch]) -> None:
        """Draw, as if answers of these batches were sampled."""
        width = self._unembedding.weight.shape[0]
        for batch in batches:
            likely = torch.ones(len(batch.wanted), width)
            torch.multinomial(likely, 1, generator=self._random)

    def metric(
        self, index: int, ridge: float, output_ridge: float
    ) -> tuple[Preserve, OutputMetric]:
        """The norms of a target's change, on its right and on its left; once.

        Parameters
        ----------
        index : int
            Of a target that is this rank's.
        ridge, output_ridge : float
        """
        self._add_waiting(index)
        preserve = self._moments.pop(index).factored(ridge=ridge)
        return preserve, OutputMetric(self._fisher.pop(index), output_ridge)
