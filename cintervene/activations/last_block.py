# SPDX-License-Identifier: Apache-2.0
"""The last layer's MLP alone, for weights of it that are changed again and again.

What enters it at a token does not depend on its weights, nor does what it returns its
output to be added to. So where nothing but the final norm follows, both are looked up
once, and a change runs the MLP at the tokens that matter and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from cintervene.activations.layer_stream import LayerStream
from cintervene.models.decoder import Decoder
from cintervene.models.resident import resident
from cintervene.models.surroundings import undisturbed
from cintervene.models.targets import Target
from cintervene.models.trace import evaluating

__all__ = ["LastBlock"]

# Tokens that go through the MLP at a time.
ROWS = 2048


@dataclass(frozen=True, eq=False)
class LastBlock:
    """The wanted rows of some streams where the last MLP is all that is left to run.

    Attributes
    ----------
    block : Target
        The MLP as a whole.
    inputs : list of Tensor
        For each stream (n, hidden), what enters it.
    beside : list of Tensor
        For each stream (n, hidden), what leaves its layer when it returns nothing.
    """

    block: Target
    inputs: list[Tensor]
    beside: list[Tensor]

    @classmethod
    def of(
        cls, decoder: Decoder, streams: Sequence[LayerStream], block: Target
    ) -> Self | None:
        """Look the rows up; None where more than the final norm follows the MLP.

        Parameters
        ----------
        decoder : Decoder
        streams : sequence of LayerStream
            Before the MLP's layer, with it for a block; they stay there.
        block : Target
        """
        layer = block.layer
        if layer != decoder.n_layers - 1:
            return None
        with resident(decoder.layers[layer]):
            if not streams[0].adds_block():
                return None
            ahead = [stream.fork(keep_bytes=0) for stream in streams]
            inputs = [stream.run(layer).inputs for stream in ahead]
            return cls(block, inputs, [stream.beside() for stream in streams])

    def states(self) -> list[Tensor]:
        """For each stream what `LayerStream.final` returns, by present weights."""
        module = self.block.module
        with undisturbed(), evaluating(module), resident(module):
            return [
                beside
                + torch.cat([module(x[None])[0] for x in torch.split(rows, ROWS)])
                for rows, beside in zip(self.inputs, self.beside, strict=True)
            ]
