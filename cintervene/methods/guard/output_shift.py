# SPDX-License-Identifier: Apache-2.0
r"""The least shift of the last layer's output after which tokens are improbable.

One problem a position: shift its output o by the smallest d, in the metric of benign
next tokens, such that every forbidden token's logit falls by what it is above its
limit. Only the head reads what the last layer adds at a position, so the effect is
computed exactly: the head is run again on the shifted state, and what the norm's
curvature has left over is asked for once more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cintervene.activations.capture import input_moments
from cintervene.activations.layer_stream import LayerStream
from cintervene.methods.common.output_metric import (
    OutputMetric,
    logit_scale,
    token_directions,
    token_statistics,
)
from cintervene.models.parts import ModelParts
from cintervene.models.weights import as_floats
from cintervene.prompts.target_spans import TargetSpan
from cintervene.solvers.pcr import pcr
from cintervene.utils.arrays import Floats

__all__ = ["TOLERANCE", "OutputPosition", "OutputShift", "ShiftSolver"]

# Nats above a limit that are let pass, and that are asked for beyond it.
TOLERANCE, MARGIN = 0.01, 0.2
# Times that the head is run again at most.
ROUNDS = 8
OUTPUT_RIDGE = 1e-2


@dataclass(frozen=True, eq=False)
class OutputPosition:
    """What passed the end of the model at n positions.

    Attributes
    ----------
    inputs, outputs : Tensor
        (n, d_in) and (n, d_out), of the last down projection.
    state : Tensor
        (n, hidden), what the final norm reads.
    logits : Tensor
        (n, vocabulary), as the head returns them.
    """

    inputs: Tensor
    outputs: Tensor
    state: Tensor
    logits: Tensor

    def at(self, rows: Tensor) -> OutputPosition:
        """Some of the positions."""
        return OutputPosition(
            self.inputs[rows], self.outputs[rows], self.state[rows], self.logits[rows]
        )


@dataclass(frozen=True, eq=False)
class OutputShift:
    """Shifts of n positions.

    Attributes
    ----------
    outputs : Tensor
        (n, d_out) float32, what is added to the down projection's output.
    logits : Tensor
        (n, vocabulary), what the head makes of it.
    excess : ndarray, shape (n,)
        Nats by which the worst token is still above its limit; 0 if none is.
    """

    outputs: Tensor
    logits: Tensor
    excess: Floats


class ShiftSolver:
    """Shifts outputs of the last layer away from tokens.

    Parameters
    ----------
    parts : ModelParts
    tokens : sequence of int
        All that may ever be forbidden.
    benign : sequence of TargetSpan
        Ordinary text, from which the norms of outputs and of inputs are taken.
    contrast : bool
        Whether to subtract the mean direction of what is said on benign text.
    ridge : float
        Of `Preserve`.
    """

    def __init__(
        self,
        parts: ModelParts,
        tokens: Sequence[int],
        benign: Sequence[TargetSpan],
        contrast: bool,
        ridge: float,
    ) -> None:
        self.unembedding = parts.unembedding
        (self.target,) = parts.targets([-1], "down_proj")
        stream = LayerStream.of(
            parts.decoder, benign, self.target.layer,
            streamed=[span.positions for span in benign],
        )  # fmt: skip
        self.preserve = input_moments(stream, self.target).preserve(ridge=ridge)
        statistics = token_statistics(self.unembedding, stream.final())
        self._metric = OutputMetric(statistics.fisher_at(self.target), OUTPUT_RIDGE)
        directions = token_directions(
            tokens, self.target, self.unembedding, statistics if contrast else None
        )
        self._directions = self._metric.directions(directions)
        self._tokens = torch.tensor(tokens, dtype=torch.int64)

    def log_probabilities(self, logits: Tensor) -> Floats:
        """Of the tokens, (n, tokens), from logits (n, vocabulary) of the head."""
        wide = self.unembedding.capped(logits.detach().float())
        own = wide[:, self._tokens.to(wide.device)]
        return as_floats(own - wide.logsumexp(dim=-1, keepdim=True))

    def solve(self, place: OutputPosition, limits: Floats) -> OutputShift:
        """Find the least shifts.

        Parameters
        ----------
        place : OutputPosition
            n positions.
        limits : ndarray, shape (n, tokens)
            Largest log-probability of each token; inf where it is free.
        """
        scale = logit_scale(self.target, self.unembedding, place.state, place.outputs)
        asked = np.zeros_like(limits)
        shift = torch.zeros_like(place.outputs, dtype=torch.float32)
        logits = place.logits
        for _ in range(ROUNDS):
            over = self._over(logits, limits)
            if not over.any():
                break
            asked += np.where(over > 0.0, over + MARGIN, 0.0)
            shift = self._shift(asked * scale[:, None]).to(shift.device)
            logits = self._logits(place, shift)
        excess = (self.log_probabilities(logits) - limits).max(axis=1)
        return OutputShift(shift, logits, np.where(excess > TOLERANCE, excess, 0.0))

    def _over(self, logits: Tensor, limits: Floats) -> Floats:
        """Nats by which logits must fall, all else being equal; 0 where they need not.

        What forbidden tokens lose the others gain, so it is their odds that count.
        """
        log_p = self.log_probabilities(logits)
        over = np.where(log_p > limits + TOLERANCE, log_p - limits, 0.0)
        mass = np.where(over > 0.0, np.exp(log_p), 0.0).sum(axis=1)
        gain = -np.log(np.maximum(1.0 - mass, 1e-6))
        odds: Floats = np.where(over > 0.0, over + gain[:, None], 0.0)
        return odds

    def _shift(self, drop: Floats) -> Tensor:
        """The least shifts (n, d_out) that lower products with the directions.

        The positions are the prompts of one problem. Their inputs are orthogonal, so
        that each is solved on its own.
        """
        columns = np.flatnonzero(drop.any(axis=0))
        wanted = drop[:, columns]
        count = len(drop)
        found = pcr(
            np.eye(count),
            np.zeros((count, self._directions.shape[1])),
            None,
            0.0,
            halfspaces=(
                self._directions[columns], np.where(wanted > 0.0, -wanted, np.inf)
            ),
        )  # fmt: skip
        return torch.from_numpy(self._metric.restore(found.update).matrix().T).float()

    def _logits(self, place: OutputPosition, shift: Tensor) -> Tensor:
        """What the head says of shifted outputs. Hooks are passed by."""
        after, moved = self.target.after, shift
        if after is not None:
            outputs = (place.outputs.float() + shift).to(place.outputs.dtype)
            moved = after.forward(outputs).float() - after.forward(place.outputs)
        state = (place.state.float() + moved).to(place.state.dtype)
        logits: Tensor = self.unembedding.head.forward(
            self.unembedding.norm.forward(state)
        )
        return logits
