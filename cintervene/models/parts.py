# SPDX-License-Identifier: Apache-2.0
"""What is found once in a model, by a probe, and handed to all that needs it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from cintervene.models.decoder import Decoder, find_decoder
from cintervene.models.targets import Target, find_targets
from cintervene.models.unembedding import Unembedding, find_unembedding
from cintervene.utils.literals import Matrix

__all__ = ["ModelParts"]


@dataclass(frozen=True, eq=False)
class ModelParts:
    """A causal language model and its parts.

    Attributes
    ----------
    model : nn.Module
    decoder : Decoder
        The stack of layers.
    unembedding : Unembedding
        Final norm and head.
    """

    model: nn.Module
    decoder: Decoder
    unembedding: Unembedding

    @classmethod
    def find(cls, model: nn.Module) -> ModelParts:
        """Find them.

        Raises
        ------
        ModelError
            The model is not built of such parts.
        """
        decoder = find_decoder(model)
        return cls(model, decoder, find_unembedding(model, decoder))

    @property
    def n_layers(self) -> int:
        """How many layers the decoder has."""
        return len(self.decoder.layers)

    def targets(self, layers: Iterable[int], matrix: Matrix) -> list[Target]:
        """The projections of some layers, lowest first; see `find_targets`."""
        return find_targets(self.model, layers, self.decoder, matrix)
