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
from cintervene.activations.lower_layers import Entering, LowerLayers, Prefix
from cintervene.models.replay import Arguments, forked
from cintervene.models.trace import PROBE_TOKENS
from cintervene.utils.progress import Step
from cintervene.utils.ranks import is_own

__all__ = ["Arrival", "Arrived", "BatchRows", "StreamBatch", "arrive"]

# Sequences that form a batch, by number, and what they all begin with.
Group = tuple[Prefix | None, list[int]]


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
    def of(
        cls,
        entered: Entering,
        members: Sequence[int],
        wanted: Sequence[Sequence[int]],
        streamed: Sequence[Sequence[int]],
    ) -> StreamBatch:
        """Some of the sequences that have come through the lower layers."""
        length, device = entered.hidden.shape[1], entered.hidden.device
        return cls(
            BatchRows.at(wanted, members, length, device),
            BatchRows.at(streamed, members, length, device),
            entered.hidden,
            entered.arguments,
        )

    def fork(self) -> StreamBatch:
        """An independent batch at the same place; it shares the tensors."""
        other = copy.copy(self)
        other.arguments = forked(self.arguments)
        return other


@dataclass(frozen=True, eq=False)
class Arrival:
    """Sequences that are to come to a layer.

    Attributes
    ----------
    ids : sequence of sequence of int
    wanted, streamed : sequence of sequence of int
        Positions in each sequence, counted from its beginning.
    batch_tokens : int
        Largest number of tokens in a batch, padding included.
    """

    ids: Sequence[Sequence[int]]
    wanted: Sequence[Sequence[int]]
    streamed: Sequence[Sequence[int]]
    batch_tokens: int

    def groups(self, prefix: Prefix | None) -> Iterator[Group]:
        """Plan batches: of sequences that begin with the prefix, and of others."""
        ids = self.ids
        begins = [prefix is not None and prefix.begins(one) for one in ids]
        for shared in dict.fromkeys((prefix, None)):
            members = [
                i for i, begun in enumerate(begins) if begun == (shared is not None)
            ]
            lengths = [len(ids[i]) for i in members]
            for group in group_by_length(lengths, self.batch_tokens):
                yield shared, [members[i] for i in group]

    def arrived(self, plan: Sequence[Group], through: Iterator[Entering]) -> Arrived:
        """Take the batches that this rank has run, as planned, and a probe."""
        batches = [
            StreamBatch.of(next(through), members, self.wanted, self.streamed)
            if is_own(number)
            else None
            for number, (_, members) in enumerate(plan)
        ]
        probe = StreamBatch.of(next(through), [0], [[]], [[]])
        order = [index for _, members in plan for index in members]
        rows = [(index, place) for index in order for place in self.wanted[index]]
        return Arrived(batches, rows, probe)


@dataclass(frozen=True, eq=False)
class Arrived:
    """What has come there.

    Attributes
    ----------
    batches : list of StreamBatch or None
        None in the place of a batch that another rank runs.
    rows : list of (int, int)
        Sequence and position of each wanted row, in the order of all batches.
    probe : StreamBatch
        A few tokens.
    """

    batches: list[StreamBatch | None]
    rows: list[tuple[int, int]]
    probe: StreamBatch


def arrive(
    lower: LowerLayers, arrivals: Sequence[Arrival], entered: Step | None
) -> list[Arrived]:
    """Run sequences through the lower layers, all batches side by side.

    Parameters
    ----------
    lower : LowerLayers
    arrivals : sequence of Arrival
        Batches are of sequences of one of them.
    entered : callable or None
        Called with numbers of sequences, of which there are as many in all as in the
        arrivals, as batches go through layers.
    """
    prefixes = lower.prefixes([one.ids for one in arrivals])
    plans = [
        list(one.groups(prefix)) for one, prefix in zip(arrivals, prefixes, strict=True)
    ]
    batches: list[tuple[Sequence[Sequence[int]], Prefix | None]] = []
    for one, plan in zip(arrivals, plans, strict=True):
        own = [group for number, group in enumerate(plan) if is_own(number)]
        batches += [([one.ids[i] for i in members], prefix) for prefix, members in own]
        batches.append(([one.ids[0][:PROBE_TOKENS]], None))
    entering = lower.begin(batches)
    total = sum(len(one.ids) for one in arrivals)
    told = _by_shares(entered or _untold, total, len(entering) * lower.first)
    lower.run(entering, lambda _: told(1))
    told(0)
    through = iter(entering)
    return [
        one.arrived(plan, through) for one, plan in zip(arrivals, plans, strict=True)
    ]


def _by_shares(step: Step, total: int, parts: int) -> Step:
    """Tell of as many of `total` steps as parts of the work are done."""
    done = told = 0

    def part(parts_done: int) -> None:
        nonlocal done, told
        done += parts_done
        now = total * done // parts if parts else total
        if now > told:
            step(now - told)
            told = now

    return part


def _untold(_steps: int) -> None:
    """Tell nobody."""
