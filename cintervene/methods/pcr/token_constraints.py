# SPDX-License-Identifier: Apache-2.0
"""A forbidden vocabulary as point-constrained regions, layer after layer.

Each forbidden token, at each place where a probe is about to say it, gives a constraint
on the layer's output. The layers are done in order, each on the activations that the
changes before it produce, and share what has to be achieved.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from cintervene.activations.layer_stream import (
    Captured,
    LayerStream,
)
from cintervene.activations.scoring import token_nll
from cintervene.methods.common.output_metric import (
    OutputMetric,
    TokenStatistics,
    token_statistics,
)
from cintervene.methods.pcr.config import PCRConfig
from cintervene.methods.pcr.constraints import TokenConstraintIndex
from cintervene.methods.pcr.layerwise import (
    LayerChange,
    Layerwise,
)
from cintervene.methods.pcr.regions import (
    HalfSpaces,
    Region,
)
from cintervene.models.parts import ModelParts
from cintervene.models.targets import Target
from cintervene.prompts.target_spans import TargetSpan
from cintervene.utils.arrays import Floats

__all__ = ["TokenConstraints"]

# How far benign words shall rise, relative to the fall of forbidden ones. It makes up
# for what words that nothing was built from lose for being like the forbidden ones.
KEEP = 0.6


class TokenConstraints(Layerwise):
    """Tokens that shall fall, by the unembedding's directions.

    The nats are those of the strength s of `solve`: each token shall fall to a
    probability of exp(-s) at most, and by s / 2 nats at least. Tokens of `contrast`
    must not become less likely.

    Parameters
    ----------
    parts, probes, benign, contrast, config, entered
        See `Layerwise`. In the probes the forbidden words are said.
    """

    pairs: TokenConstraintIndex

    def __init__(
        self,
        parts: ModelParts,
        probes: Sequence[TargetSpan],
        benign: Sequence[TargetSpan],
        contrast: Sequence[TargetSpan],
        config: PCRConfig,
        entered: Callable[[int], None] | None = None,
    ) -> None:
        pairs = TokenConstraintIndex.of(probes, contrast)
        super().__init__(parts, probes, benign, contrast, pairs, config, entered)
        self.nll = self._pair_nll()

    def _statistics(self, benign: LayerStream, spoken: LayerStream) -> TokenStatistics:
        """Take next tokens from benign text and from where benign words begin."""
        self._state = spoken.final()
        kept = np.flatnonzero(np.bincount(self.pairs.rows, ~self.pairs.falling))
        states = [benign.final(), self._state[torch.from_numpy(kept)]]
        return token_statistics(self.unembedding, torch.cat(states))

    def _asked(self, strength: float, found: Sequence[LayerChange]) -> Floats:
        """An equal share of what the layers before have left."""
        fall = np.maximum(strength - self.nll, strength / 2)
        goal = self.pairs.weights * np.where(self.pairs.falling, fall, KEEP * strength)
        for change in found:
            goal = goal - change.reached
        share: Floats = goal / (len(self.targets) - len(found))
        return share

    def _region(self, target: Target, rows: Captured, metric: OutputMetric) -> Region:
        return HalfSpaces(
            self.pairs, rows, target, self._state, self.unembedding, self.statistics,
            self.config.concepts == "contrast", metric,
        )  # fmt: skip

    def _pair_nll(self) -> Floats:
        tokens = torch.from_numpy(self.pairs.tokens[self.pairs.columns])
        return token_nll(self.unembedding, self._state[self.pairs.rows], tokens)
