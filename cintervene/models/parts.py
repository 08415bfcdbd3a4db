# SPDX-License-Identifier: Apache-2.0
"""What is found in a model by one probe, and then handed to all that needs it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from torch import nn

from cintervene.errors import ModelError
from cintervene.models.decoder import Decoder, find_decoder
from cintervene.models.targets import (
    Explanation,
    Target,
    check_matrix,
    explanation_of,
    targets_of,
)
from cintervene.models.unembedding import Unembedding, unembedding_of
from cintervene.utils.literals import Matrix

__all__ = ["ModelParts", "explain"]


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

    def explain(
        self, layers: Iterable[int] | None = None, matrix: Matrix = "down_proj"
    ) -> Explanation:
        """Which layers can be changed, and why not the others."""
        return explanation_of(self.decoder, layers, matrix)

    def changeable(self, matrix: Matrix, last: int | None = None) -> list[int]:
        """The layers that can be changed, lowest first.

        Parameters
        ----------
        matrix : {"down_proj", "o_proj"}
        last : int, optional
            Only the last so many of them; those below are not looked at then, which
            would be read from a disk for that.

        Raises
        ------
        ModelError
            There are none.
        """
        if last is not None:
            able = (
                layer
                for layer in reversed(range(self.n_layers))
                if self.explain([layer], matrix).targets
            )
            if found_last := list(islice(able, last)):
                return found_last[::-1]
        found = self.explain(None, matrix)
        if not found.targets:
            reason = next(iter(found.refused.values()))
            raise ModelError(f"no layer of {found.model} can be changed: {reason}")
        return [target.layer for target in found.targets]


def explain(
    model: nn.Module,
    layers: Iterable[int] | None = None,
    matrix: Matrix = "down_proj",
) -> Explanation:
    """Say what would be changed in `model`, layer by layer, without changing anything.

    The parameters are those of `find_targets`.

    Raises
    ------
    ModelError
        The model is not built of the parts that methods need.
    ArgumentError
        As `find_targets`.
    """
    check_matrix(matrix)
    return ModelParts.find(model).explain(layers, matrix)
