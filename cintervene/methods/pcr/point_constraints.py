# SPDX-License-Identifier: Apache-2.0
"""A concept as points: outputs shall leave where the base model has them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cintervene.activations.layer_stream import Captured
from cintervene.methods.common.output_metric import OutputMetric, token_statistics
from cintervene.methods.pcr.base_activations import BaseActivations
from cintervene.methods.pcr.constraints import ConstraintIndex
from cintervene.methods.pcr.layerwise import LayerChange
from cintervene.methods.pcr.regions import Balls, Differences
from cintervene.models.targets import Target
from cintervene.models.unembedding import Unembedding
from cintervene.utils.arrays import Floats

__all__ = ["PointConstraints"]


class PointConstraints:
    """Outputs that shall leave the mean outputs of the base model.

    Each layer is asked for the whole strength: the radius of balls in typical distances
    (`Balls`, docs/methods/pcr.md (12)), or the distance towards the benign mean
    (`Differences`, (13)). What the layers before did counts, for the points stay where
    the base model has them.

    Parameters
    ----------
    constraints : ConstraintIndex
    base : BaseActivations
        Of the rows of `constraints`, with points.
    unembedding : Unembedding
    region : {Balls, Differences}
        The class of the regions.

    Attributes
    ----------
    statistics : TokenStatistics
        Next-token distributions of benign text.
    """

    def __init__(
        self,
        constraints: ConstraintIndex,
        base: BaseActivations,
        unembedding: Unembedding,
        *,
        region: type[Balls] | type[Differences],
    ) -> None:
        self._constraints, self._points = constraints, base.points
        self._region = region
        self.statistics = token_statistics(unembedding, base.retain.final())

    def amount(
        self, strength: float, changes: Sequence[LayerChange], n_layers: int
    ) -> Floats:
        """The strength, for every constraint of every layer."""
        return np.full(len(self._constraints.rows), strength)

    def region(
        self, target: Target, rows: Captured, metric: OutputMetric
    ) -> Balls | Differences:
        """Where the layer's outputs may be, around the base model's points."""
        points = self._points[target.layer]
        return self._region(self._constraints, rows, points, metric)
