# SPDX-License-Identifier: Apache-2.0
"""What parts of one layer take and return, sequence by sequence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack

from torch import Tensor, nn

from cintervene.activations.batches import group_by_length, padded
from cintervene.activations.layer_stream import BATCH_TOKENS
from cintervene.activations.lower_layers import LowerLayers
from cintervene.models.decoder import Decoder
from cintervene.models.trace import Hook, evaluating, hooked

__all__ = ["ENTERS", "Watched", "watched"]

# By the name of a part: what it takes and what it returns, each (tokens, d), float32.
Watched = Mapping[str, tuple[Tensor, Tensor]]

# The layer itself among its parts.
ENTERS = ""


def watched(
    decoder: Decoder,
    layer: int,
    modules: Mapping[str, nn.Module],
    sequences: Sequence[Sequence[int]],
) -> Iterator[tuple[int, Watched]]:
    """Run sequences up to a layer, and look at some of its parts.

    Parameters
    ----------
    decoder : Decoder
    layer : int
    modules : mapping of str to nn.Module
        Parts of the layer by a name; that of `ENTERS` is the layer's own.
    sequences : sequence of sequence of int

    Yields
    ------
    index : int
        Which of the sequences.
    watched : Watched
    """
    lower = LowerLayers(decoder, layer)
    block = decoder.layers[layer]
    for batch in group_by_length([len(one) for one in sequences], BATCH_TOKENS):
        hidden, arguments = lower.call(padded([sequences[i] for i in batch]), layer)
        found: dict[str, tuple[Tensor, Tensor]] = {}
        args, kwargs = arguments[layer]
        with evaluating(block), ExitStack() as hooks:
            for name, module in modules.items():
                hooks.enter_context(hooked(module, _keep(found, name)))
            block(hidden, *args, **kwargs)
        found[ENTERS] = hidden, hidden
        rows = {
            name: tuple(x.reshape(*hidden.shape[:2], -1).float() for x in pair)
            for name, pair in found.items()
        }
        for row, index in enumerate(batch):
            size = len(sequences[index])
            yield (
                index,
                {name: (x[row, :size], y[row, :size]) for name, (x, y) in rows.items()},
            )


def _keep(found: dict[str, tuple[Tensor, Tensor]], name: str) -> Hook:
    """A hook that keeps what a module takes and returns."""

    def hook(_module: nn.Module, args: tuple[Tensor, ...], y: Tensor) -> None:
        found[name] = args[0], y

    return hook
