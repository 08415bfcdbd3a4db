# SPDX-License-Identifier: Apache-2.0
"""Inputs and outputs of a layer's projection at chosen tokens, in one call."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from cintervene.activations.batches import Positions
from cintervene.activations.layer_stream import Captured, LayerStream
from cintervene.errors import ArgumentError
from cintervene.models.decoder import find_decoder, resolve_layers
from cintervene.models.precision import quick_products
from cintervene.models.targets import Target
from cintervene.solvers.preserve import BenignMoments
from cintervene.utils.literals import Matrix


def input_moments(stream: LayerStream, target: Target) -> BenignMoments:
    """Run a stream up to a projection; second moments of its streamed inputs."""
    moments = BenignMoments(target.d_in)

    def add(inputs: Tensor, _outputs: Tensor) -> None:
        moments.add(inputs.cpu())

    stream.run(target.layer, add)
    return moments


@quick_products()
def capture(
    model: nn.Module,
    sequences: Sequence[Sequence[int]] | Sequence[str],
    layers: Iterable[int],
    positions: Sequence[Positions] | int | slice = -1,
    *,
    tokenizer: Any = None,
    batch_tokens: int = 2048,
    matrix: Matrix = "down_proj",
) -> dict[int, Captured]:
    """Return inputs and outputs of the projections of `layers` at `positions`.

    Parameters
    ----------
    model : nn.Module
        A causal language model of transformers.
    sequences : sequence of token id lists, or of strings together with `tokenizer`
        Strings are encoded as they are, special tokens included as the tokenizer adds
        them; apply a chat template beforehand where one is wanted.
    layers : iterable of int
        Negative ones count from the end.
    positions : int, slice, or one sequence of int or slice per sequence
        Which tokens; the last one of each sequence by default.
    matrix : {"down_proj", "o_proj"}
        See `find_targets`.

    Returns
    -------
    dict of int to Captured

    Raises
    ------
    ArgumentError, ModelError
        As `find_targets` and `LayerStream`.
    """
    ids = _encoded(sequences, tokenizer)
    if isinstance(positions, int):
        positions = [[positions]] * len(ids)
    elif isinstance(positions, slice):
        positions = [positions] * len(ids)
    decoder = find_decoder(model)
    chosen = resolve_layers(layers, decoder.n_layers)
    stream = LayerStream(
        decoder, ids, chosen[0], wanted=positions,
        batch_tokens=batch_tokens, keep_bytes=0, matrix=matrix,
    )  # fmt: skip
    return {layer: stream.run(layer) for layer in chosen}


def _encoded(sequences: Sequence[Any], tokenizer: Any) -> list[list[int]]:
    if not any(isinstance(one, str) for one in sequences):
        return [list(one) for one in sequences]
    if tokenizer is None:
        raise ArgumentError(
            "tokenizer: got None, expected the tokenizer of the strings given"
        )
    return [list(tokenizer(one)["input_ids"]) for one in sequences]
