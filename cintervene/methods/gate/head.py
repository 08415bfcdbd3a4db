# SPDX-License-Identifier: Apache-2.0
"""Finding the heads of a layer's attention, by what its modules return.

The first token sees itself alone, so that what enters the output projection there is
what the value projection returned, once for each head that shares it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cintervene.errors import ModelError
from cintervene.models.blocks import holds_matrix, parent
from cintervene.models.decoder import Decoder
from cintervene.models.targets import Target, plain_targets, targets_of
from cintervene.models.trace import Call

__all__ = ["Head", "find_heads"]


@dataclass(frozen=True, eq=False)
class Head:
    """One head of an attention, and what it shares with others.

    Attributes
    ----------
    query, key, value, output : Target
        The projections.
    rows : range
        The head's own rows of the query projection, and columns of the output's.
    values : range
        Its rows of the key and of the value projection.
    group : list of range
        The columns of the output projection that are multiplied with these values, of
        all heads that share them.
    """

    query: Target
    key: Target
    value: Target
    output: Target
    rows: range
    values: range
    group: list[range]


def find_heads(decoder: Decoder, layer: int) -> list[Head]:
    """Find the heads of a layer.

    Raises
    ------
    ModelError
        The layer has no attention whose queries, keys and values have matrices of
        their own and nothing else, and whose result is added to the residual stream
        as it is.
    """
    (output,) = targets_of(decoder, [layer], "o_proj")
    name = output.name.rpartition(".")[0]
    path = name.rpartition(".")[0]
    calls = [
        call
        for call in decoder.calls
        if parent(call) == path and holds_matrix(call.module)
    ]
    last = next(call for call in calls if call.name == name)
    heads = _number_of_heads(decoder, output)
    before = [call for call in calls if call is not last]
    found = [call for call in before if heads and _are_values(call, last, heads)]
    # Queries and keys, in this order.
    rest = [call for call in before if call not in found]
    widths = [call.y.shape[-1] for call in rest]
    plain = found and widths == [output.d_in, found[0].y.shape[-1]]
    if not plain or _others(decoder, path) or output.after is not None:
        raise ModelError(
            f"{path}: expected an attention with matrices of its own for queries, keys "
            "and values and no norms of these, whose result is added as it is"
        )
    query, key, value = plain_targets(decoder, [*rest, found[0]], layer)
    if any(target.quantised for target in (query, key, value, output)):
        raise ModelError(f"{path}: its weights are quantised and cannot be changed")
    size = output.d_in // heads
    shared = output.d_in // value.d_out
    parts = [range(at * size, (at + 1) * size) for at in range(heads)]
    return [
        Head(
            query, key, value, output, parts[at], parts[at // shared],
            parts[at // shared * shared : (at // shared + 1) * shared],
        )
        for at in range(heads)
    ]  # fmt: skip


def _others(decoder: Decoder, path: str) -> bool:
    """Whether an attention has parts that hold no matrix, such as norms."""
    return any(
        parent(call) == path and not holds_matrix(call.module) for call in decoder.calls
    )


def _number_of_heads(decoder: Decoder, output: Target) -> int:
    """As the configuration says; 0 where that cannot be."""
    config = decoder.model.config
    text = getattr(config, "get_text_config", lambda: config)()
    heads = getattr(text, "num_attention_heads", None)
    return heads if isinstance(heads, int) and output.d_in % heads == 0 else 0


def _are_values(call: Call, last: Call, heads: int) -> bool:
    """Whether what a projection returns is what attention mixes."""
    mixed, own = _first_token(last.x), _first_token(call.y)
    size = len(mixed) // heads
    if len(own) % size or heads % (len(own) // size):
        return False
    shared = heads * size // len(own)
    spread = own.view(-1, size).repeat_interleave(shared, dim=0).flatten()
    return torch.allclose(spread, mixed, rtol=1e-2, atol=1e-2 * float(mixed.std()))


def _first_token(values: Tensor) -> Tensor:
    return values.reshape(-1, values.shape[-1])[0].float().cpu()
