# SPDX-License-Identifier: Apache-2.0
"""How much what a model says depends on the inputs and outputs of some projections.

Both sides of a change are measured: `Preserve` on its right by the inputs that must not
be moved, `OutputMetric` on its left by the mean outer product of the outputs'
derivatives of the log probability of sampled answers, which is the Fisher information.
(The product of both is the curvature of K-FAC, Martens and Grosse 2015.)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from cintervene.activations.upper_layers import UpperLayers, logits_of
from cintervene.methods.common.objectives import set_loss
from cintervene.methods.common.output_metric import OutputMetric
from cintervene.models.targets import Target
from cintervene.models.unembedding import Unembedding
from cintervene.models.weights import as_floats
from cintervene.solvers.preserve import BenignMoments, Preserve

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
        self._moments = [
            BenignMoments(target.d_in, in_place=True) for target in targets
        ]
        self._waiting: list[list[Tensor]] = [[] for _ in targets]
        self._fisher = [np.zeros((target.d_out, target.d_out)) for target in targets]
        self._random = torch.Generator().manual_seed(SEED)

    def count(self, index: int, inputs: Tensor) -> None:
        """Count inputs (n, d_in) of a target as not to be moved."""
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
        for batch in upper.batches:
            outputs: list[Tensor] = []

            def watch(_index: int, _inputs: Tensor, changed: Tensor) -> None:
                changed.retain_grad()
                outputs.append(changed)  # noqa: B023

            logits = logits_of(self._unembedding, upper.states(batch, None, watch))
            likely = torch.softmax(logits.detach().cpu(), dim=-1)
            sampled = torch.multinomial(likely, 1, generator=self._random)
            set_loss(logits, sampled.tolist()).sum().backward()  # type: ignore[no-untyped-call]
            for fisher, output in zip(self._fisher, outputs, strict=True):
                assert output.grad is not None
                real = batch.real.to(output.device)
                rows = as_floats(output.grad[real])
                fisher += rows.T @ rows

    def metrics(
        self, ridge: float, output_ridge: float
    ) -> list[tuple[Preserve, OutputMetric]]:
        """The norms of each target's change, on its right and on its left; once."""
        found = []
        for index, moments in enumerate(self._moments):
            self._add_waiting(index)
            preserve = moments.factored(ridge=ridge)
            # Each is given up, as the moments are.
            found.append((preserve, OutputMetric(self._fisher.pop(0), output_ridge)))
        return found
