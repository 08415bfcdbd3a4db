# SPDX-License-Identifier: Apache-2.0
"""Outputs of some layers kept away from where they are when a concept comes up."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from torch import nn

from cintervene.models.capture import Captured
from cintervene.models.concepts import Balls, Differences, Points, Region, as_floats
from cintervene.models.fisher import OutputMetric
from cintervene.models.layerwise import (
    LayerChange,
    Layerwise,
    VocabularyOptions,
    Watched,
)
from cintervene.models.pairs import Pairs
from cintervene.models.targets import Matrix, Target
from cintervene.models.utterances import Utterance

__all__ = ["ConceptPoints"]

Floats = npt.NDArray[np.float64]


class ConceptPoints(Layerwise):
    """Outputs that shall leave the mean outputs of the base model.

    Each layer is asked for the whole strength of `solve`: the radius of balls in
    typical distances (`Balls`), or the way towards the benign mean (`Differences`).
    What the layers before did counts, for the points stay where the base model has
    them.

    Parameters
    ----------
    model, probes, benign, contrast, pairs, layers, options, entered, matrix
        See `Layerwise`.
    """

    def __init__(
        self,
        model: nn.Module,
        probes: Sequence[Utterance],
        benign: Sequence[Utterance],
        contrast: Sequence[Utterance],
        pairs: Pairs,
        layers: Sequence[int],
        options: VocabularyOptions,
        entered: Callable[[int], None] | None = None,
        matrix: Matrix = "down_proj",
    ) -> None:
        self.pairs = pairs
        self._points: dict[int, Points] = {}
        super().__init__(
            model, probes, benign, contrast, pairs, layers, options, entered, matrix
        )

    def _saw(self, target: Target, benign: Watched, spoken: Watched) -> None:
        """The mean of what is like the probes, or of all that is benign."""
        mean = spoken.mean if spoken.moments.count else benign.mean
        self._points[target.layer] = Points(as_floats(spoken.rows.outputs), mean)

    def _asked(self, strength: float, _found: Sequence[LayerChange]) -> Floats:
        return np.full(len(self.pairs.rows), strength)

    def _region(self, target: Target, rows: Captured, metric: OutputMetric) -> Region:
        kind = Balls if self.options.concepts == "activation" else Differences
        return kind(self.pairs, rows, self._points[target.layer], metric)
