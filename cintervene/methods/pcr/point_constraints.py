# SPDX-License-Identifier: Apache-2.0
"""Outputs of some layers kept away from where they are when a concept comes up."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cintervene.activations.layer_stream import Captured
from cintervene.methods.common.output_metric import OutputMetric
from cintervene.methods.pcr.layerwise import (
    LayerChange,
    Layerwise,
    Watched,
)
from cintervene.methods.pcr.regions import (
    Balls,
    Differences,
    Points,
    Region,
)
from cintervene.models.targets import Target
from cintervene.models.weights import as_floats
from cintervene.utils.arrays import Floats

__all__ = ["PointConstraints"]


class PointConstraints(Layerwise):
    """Outputs that shall leave the mean outputs of the base model.

    Each layer is asked for the whole strength of `solve`: the radius of balls in
    typical distances (`Balls`), or the way towards the benign mean (`Differences`).
    What the layers before did counts, for the points stay where the base model has
    them.
    """

    def _seen(self, benign: Watched, spoken: Watched) -> Points:
        """The mean of what is like the probes, or of all that is benign."""
        mean = spoken.mean if spoken.moments.count else benign.mean
        return Points(as_floats(spoken.rows.outputs), mean)

    def _asked(self, strength: float, _found: Sequence[LayerChange]) -> Floats:
        return np.full(len(self.pairs.rows), strength)

    def _region(self, target: Target, rows: Captured, metric: OutputMetric) -> Region:
        kind = Balls if self.config.concepts == "activation" else Differences
        points = self._points[target.layer]
        assert points is not None
        return kind(self.pairs, rows, points, metric)
