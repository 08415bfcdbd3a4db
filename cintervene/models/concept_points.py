# SPDX-License-Identifier: Apache-2.0
"""Outputs of some layers kept away from where they are when a concept comes up."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cintervene.models.capture import Captured
from cintervene.models.concepts import Balls, Differences, Points, Region, as_floats
from cintervene.models.fisher import OutputMetric
from cintervene.models.layerwise import (
    LayerChange,
    Layerwise,
    Watched,
)
from cintervene.models.targets import Target

__all__ = ["ConceptPoints"]

Floats = npt.NDArray[np.float64]


class ConceptPoints(Layerwise):
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
        kind = Balls if self.options.concepts == "activation" else Differences
        points = self._points[target.layer]
        assert points is not None
        return kind(self.pairs, rows, points, metric)
