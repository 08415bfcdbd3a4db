# SPDX-License-Identifier: Apache-2.0
"""Forbidden words as half-spaces: each of their tokens shall become less likely.

Each forbidden token, at each place where a calibration text is about to say it, gives a
constraint on the outputs of every layer, and the layers share what is requested.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from cintervene.activations.layer_stream import Captured
from cintervene.activations.scoring import token_nll
from cintervene.methods.common.output_metric import (
    OutputMetric,
    logit_scale,
    token_directions,
    token_statistics,
)
from cintervene.methods.pcr.base_activations import BaseActivations
from cintervene.methods.pcr.constraints import TokenConstraintIndex
from cintervene.methods.pcr.layerwise import LayerChange
from cintervene.methods.pcr.regions import HalfSpaces
from cintervene.models.targets import Target
from cintervene.models.unembedding import Unembedding
from cintervene.utils.arrays import Floats

__all__ = ["TokenConstraints"]

# How far tokens of near negatives shall rise, relative to the fall of forbidden ones.
# It makes up for what other words lose by being like the forbidden ones.
RISE = 0.6


class TokenConstraints:
    """Tokens that shall fall or rise, along directions of the unembedding.

    Their half-spaces are docs/methods/pcr.md (8), in which this class says what a is.

    At strength s each forbidden token shall fall to a probability of exp(-s) at most,
    and by s / 2 nats at least; tokens of near negatives shall rise.

    Parameters
    ----------
    constraints : TokenConstraintIndex
    base : BaseActivations
        Of the rows of `constraints`.
    unembedding : Unembedding
    contrast : bool
        Subtract from each direction the mean one of what the model says on benign text.

    Attributes
    ----------
    statistics : TokenStatistics
        Next-token distributions of benign text and of the rows of near negatives.
    """

    def __init__(
        self,
        constraints: TokenConstraintIndex,
        base: BaseActivations,
        unembedding: Unembedding,
        *,
        contrast: bool,
    ) -> None:
        self._constraints, self._unembedding = constraints, unembedding
        rows, falling = constraints.rows, constraints.falling
        self._state = base.constrained.final()
        rising = torch.from_numpy(np.flatnonzero(np.bincount(rows, ~falling)))
        states = torch.cat([base.retain.final(), self._state[rising]])
        self.statistics = token_statistics(unembedding, states)
        self._benign = self.statistics if contrast else None
        self._directions: dict[int, Floats] = {}
        tokens = torch.from_numpy(constraints.tokens[constraints.columns])
        self._nll = token_nll(unembedding, self._state[rows], tokens)

    def amount(
        self, strength: float, changes: Sequence[LayerChange], n_layers: int
    ) -> Floats:
        """Nats: an equal share of what the layers before have left."""
        constraints = self._constraints
        fall = np.maximum(strength - self._nll, strength / 2)
        nats = np.where(constraints.falling, fall, RISE * strength)
        remaining = constraints.weights * nats
        for change in changes:
            remaining = remaining - change.achieved
        share: Floats = remaining / (n_layers - len(changes))
        return share

    def region(
        self, target: Target, rows: Captured, metric: OutputMetric
    ) -> HalfSpaces:
        """A half-space for each constraint, at the outputs that the layer has now."""
        scale = logit_scale(target, self._unembedding, self._state, rows.outputs)
        directions = self._directions_at(target, metric)
        return HalfSpaces(self._constraints, rows, directions, scale, metric)

    def _directions_at(self, target: Target, metric: OutputMetric) -> Floats:
        """Of each column, in the metric's coordinates: the same for any strength."""
        if target.layer not in self._directions:
            constraints = self._constraints
            directions = token_directions(
                constraints.tokens.tolist(), target, self._unembedding, self._benign
            )
            directions *= constraints.signs[:, None]
            self._directions[target.layer] = metric.directions(directions)
        return self._directions[target.layer]
