# SPDX-License-Identifier: Apache-2.0
r"""The least shift of the last layer's output after which tokens are improbable.

One problem a position: shift its output o by the smallest d, in the metric of benign
next tokens, such that every forbidden token's logit falls by what it is above its
limit. Only the head reads what the last layer adds at a position, so the effect is
computed exactly: the head is run again on the shifted state, and what the norm's
curvature has left over is added to the next solve. Formulas (2) and (3) of
docs/methods/guard.md.
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
from cintervene.solvers.solution import Solution
from cintervene.utils.arrays import Floats

__all__ = ["TOLERANCE", "OutputPosition", "OutputShift", "ShiftSolver"]

# Nats above a limit that are let pass, and by which solves aim below it.
TOLERANCE, MARGIN = 0.01, 0.2
# Times that the head is run again at most.
ROUNDS = 8
OUTPUT_RIDGE = 1e-2
# Of multipliers that are as good as exact.
STATIONARY = 1e-9


@dataclass(frozen=True, eq=False)
class OutputPosition:
    """What passed the end of the model at n positions.

    Attributes
    ----------
    inputs, outputs : Tensor
        (n, d_in) and (n, d_out), of the last down projection.
    residual : Tensor
        (n, hidden), what the final norm reads: the residual stream.
    logits : Tensor
        (n, vocabulary), as the head returns them.
    """

    inputs: Tensor
    outputs: Tensor
    residual: Tensor
    logits: Tensor


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
        # Factored here, for the first prompt that needs it would wait for it.
        self.preserve = input_moments(stream, self.target).factored(ridge=ridge)
        statistics = token_statistics(self.unembedding, stream.final())
        metric = OutputMetric(statistics.fisher_at(self.target), OUTPUT_RIDGE)
        directions = token_directions(
            tokens, self.target, self.unembedding, statistics if contrast else None
        )
        self._directions = metric.directions(directions)
        # A shift is a sum of directions. These are in the layer's own coordinates, so
        # that no shift has to be mapped back.
        self._restored = metric.restored(self._directions)
        self._tokens = torch.tensor(tokens, dtype=torch.int64)

    def log_probabilities(self, logits: Tensor) -> Floats:
        """Of the tokens, (n, tokens), from logits (n, vocabulary) of the head."""
        capped = self.unembedding.capped(logits.detach().float())
        chosen = capped[:, self._tokens.to(capped.device)]
        return as_floats(chosen - capped.logsumexp(dim=-1, keepdim=True))

    def solve(self, position: OutputPosition, limits: Floats) -> OutputShift:
        """Find the least shifts.

        Parameters
        ----------
        position : OutputPosition
            n of them.
        limits : ndarray, shape (n, tokens)
            Largest log-probability of each token; inf where it is free.
        """
        scale = logit_scale(
            self.target, self.unembedding, position.residual, position.outputs
        )
        drop = np.zeros_like(limits)
        shift = torch.zeros_like(position.outputs, dtype=torch.float32)
        logits = position.logits
        for _ in range(ROUNDS):
            odds = self._odds_above(logits, limits)
            if not odds.any():
                break
            drop += np.where(odds > 0.0, odds + MARGIN, 0.0)
            shift = self._least_shift(drop * scale[:, None]).to(shift.device)
            logits = self.shifted(position, shift).logits
        excess = (self.log_probabilities(logits) - limits).max(axis=1)
        return OutputShift(shift, logits, np.where(excess > TOLERANCE, excess, 0.0))

    def _odds_above(self, logits: Tensor, limits: Floats) -> Floats:
        """Nats by which logits must fall, all else being equal: formula (3).

        What forbidden tokens lose the others gain, so it is their odds that count. 0
        where a logit need not fall.
        """
        log_p = self.log_probabilities(logits)
        over = np.where(log_p > limits + TOLERANCE, log_p - limits, 0.0)
        mass = np.where(over > 0.0, np.exp(log_p), 0.0).sum(axis=1)
        gain = -np.log(np.maximum(1.0 - mass, 1e-6))
        odds: Floats = np.where(over > 0.0, over + gain[:, None], 0.0)
        return odds

    def _least_shift(self, drop: Floats) -> Tensor:
        """The least shifts (n, d_out) that lower products with the directions: (2).

        The positions are the prompts of one problem. Their inputs are orthogonal, so
        that each is solved on its own.
        """
        columns = np.flatnonzero(drop.any(axis=0))
        bounds = np.where(drop[:, columns] > 0.0, -drop[:, columns], np.inf)
        directions, count = self._directions[columns], len(drop)
        solution = pcr(
            np.eye(count),
            np.zeros((count, directions.shape[1])),
            None,
            0.0,
            halfspaces=(directions, bounds),
        )
        shifts = _weights(solution, directions) @ self._restored[columns]
        return torch.from_numpy(shifts).float()

    def shifted(self, position: OutputPosition, shift: Tensor) -> OutputPosition:
        """The same positions after their outputs were shifted; hooks are not called."""
        outputs = (position.outputs.float() + shift).to(position.outputs.dtype)
        after, moved = self.target.after, shift * self.target.gain
        if after is not None:
            moved = after.forward(outputs).float() - after.forward(position.outputs)
        residual = (position.residual.float() + moved).to(position.residual.dtype)
        logits = self.unembedding.head.forward(self.unembedding.norm.forward(residual))
        return OutputPosition(position.inputs, outputs, residual, logits)


def _weights(solution: Solution, directions: Floats) -> Floats:
    """Of directions (k, d_out), whose sums the displacements are; (positions, k).

    Where the solve is stationary they are the multipliers.
    """
    multipliers = solution.multipliers
    if multipliers is not None and solution.residuals["stationarity"] <= STATIONARY:
        return -multipliers
    fit = np.linalg.lstsq(directions.T, solution.displacements.T, rcond=None)
    return np.asarray(fit[0].T, dtype=np.float64)
