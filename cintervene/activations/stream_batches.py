# SPDX-License-Identifier: Apache-2.0
"""Padded batches of sequences on their way through the layers of a decoder.

Sequences are padded on the right: under a causal mask no token sees the padding, so
neither masks nor shifted positions are needed, and padded rows are never handed out.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cintervene.activations.batches import group_by_length
from cintervene.activations.lower_layers import LowerLayers, Prefix
from cintervene.models.replay import Arguments, forked
from cintervene.utils.progress import Step
from cintervene.utils.ranks import is_own

__all__ = ["BatchRows", "StreamBatch", "enter_batches"]


@dataclass(frozen=True, eq=False)
class BatchRows:
    """Some rows of a batch.

    Attributes
    ----------
    flat : Tensor
        (n,) int64, indices into (batch * length).
    """

    flat: Tensor

    @classmethod
    def at(
        cls,
        positions: Sequence[Sequence[int]],
        members: Sequence[int],
        length: int,
        device: torch.device,
    ) -> BatchRows:
        """The rows at `positions` of the sequences that are in the batch."""
        flat = [
            row * length + position
            for row, index in enumerate(members)
            for position in positions[index]
        ]
        return cls(torch.tensor(flat, dtype=torch.int64, device=device))

    def of(self, x: Tensor) -> Tensor:
        """Take them from a tensor (batch, length, width)."""
        return x.reshape(-1, x.shape[-1])[self.flat.to(x.device)]


@dataclass(eq=False)
class StreamBatch:
    """One padded batch.

    Attributes
    ----------
    wanted, streamed : BatchRows
    hidden : Tensor
        (batch, length, hidden), what enters the layer to come.
    arguments : dict of int to Arguments
        What each layer to come is called with besides.
    output : Tensor or None
        What left that layer, once it was run.
    kept : Tensor or None
        (batch, length, d_in), the inputs of its projection, if there was room.
    """

    wanted: BatchRows
    streamed: BatchRows
    hidden: Tensor
    arguments: dict[int, Arguments]
    output: Tensor | None = None
    kept: Tensor | None = None

    @classmethod
    def enter(
        cls,
        lower: LowerLayers,
        ids: Sequence[Sequence[int]],
        members: Sequence[int],
        prefix: Prefix | None = None,
        wanted: Sequence[Sequence[int]] | None = None,
        streamed: Sequence[Sequence[int]] | None = None,
    ) -> StreamBatch:
        """Run some of the sequences through the lower layers."""
        hidden, arguments = lower.run([ids[index] for index in members], prefix)
        nowhere: list[list[int]] = [[] for _ in ids]
        length, device = hidden.shape[1], hidden.device
        return cls(
            BatchRows.at(wanted or nowhere, members, length, device),
            BatchRows.at(streamed or nowhere, members, length, device),
            hidden,
            arguments,
        )

    def fork(self) -> StreamBatch:
        """An independent batch at the same place; it shares the tensors."""
        other = copy.copy(self)
        other.arguments = forked(self.arguments)
        return other


def enter_batches(
    lower: LowerLayers,
    ids: Sequence[Sequence[int]],
    wanted: Sequence[Sequence[int]],
    streamed: Sequence[Sequence[int]],
    batch_tokens: int,
    entered: Step | None,
) -> tuple[list[StreamBatch | None], list[tuple[int, int]]]:
    """Run all sequences through the lower layers, batch by batch.

    Parameters
    ----------
    lower : LowerLayers
    ids : sequence of sequence of int
    wanted, streamed : sequence of sequence of int
        Positions in each sequence, counted from its beginning.
    batch_tokens : int
        Largest number of tokens in a batch, padding included.
    entered : callable or None
        Called with the number of sequences of each batch that is through.

    Returns
    -------
    batches : list of StreamBatch or None
        None in the place of a batch that another rank runs.
    rows : list of (int, int)
        Sequence and position of each wanted row, in the order of all batches.
    """
    batches: list[StreamBatch | None] = []
    rows: list[tuple[int, int]] = []
    for number, (prefix, members) in enumerate(_groups(lower, ids, batch_tokens)):
        own = is_own(number)
        batches.append(
            StreamBatch.enter(lower, ids, members, prefix, wanted, streamed)
            if own
            else None
        )
        rows += [(index, position) for index in members for position in wanted[index]]
        if entered is not None:
            entered(len(members))
    return batches, rows


def _groups(
    lower: LowerLayers, ids: Sequence[Sequence[int]], batch_tokens: int
) -> Iterator[tuple[Prefix | None, list[int]]]:
    """Plan batches: of sequences that begin with the shared prefix, and of others."""
    prefix = lower.prefix(ids)
    begins = [prefix is not None and prefix.begins(one) for one in ids]
    for shared in dict.fromkeys((prefix, None)):
        members = [i for i, begun in enumerate(begins) if begun == (shared is not None)]
        for group in group_by_length([len(ids[i]) for i in members], batch_tokens):
            yield shared, [members[i] for i in group]
