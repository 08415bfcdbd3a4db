# SPDX-License-Identifier: Apache-2.0
"""What is found in a model by one probe, and then handed to all that needs it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from cintervene.models.decoder import Decoder, find_decoder
from cintervene.models.targets import Target, targets_of
from cintervene.models.unembedding import Unembedding, unembedding_of
from cintervene.utils.literals import Matrix

__all__ = ["ModelParts"]


@dataclass(frozen=True, eq=False)
class ModelParts:
    """A causal language model and its parts.

    Attributes
    ----------
    decoder : Decoder
        The stack of layers, which knows the model it is of.
    unembedding : Unembedding
        Final norm and head.
    """

    decoder: Decoder
    unembedding: Unembedding

    @classmethod
    def find(cls, model: nn.Module) -> ModelParts:
        """Find them, by a forward pass of three tokens.

        Raises
        ------
        ModelError
            The model is not built of such parts.
        """
        decoder = find_decoder(model)
        return cls(decoder, unembedding_of(decoder))

    @property
    def model(self) -> nn.Module:
        """The model whose parts these are."""
        return self.decoder.model

    @property
    def n_layers(self) -> int:
        """How many layers the decoder has."""
        return self.decoder.n_layers

    def targets(self, layers: Iterable[int], matrix: Matrix) -> list[Target]:
        """The projections of some layers, lowest first; see `find_targets`."""
        return targets_of(self.decoder, layers, matrix)
