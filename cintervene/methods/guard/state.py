# SPDX-License-Identifier: Apache-2.0
"""Sequences that a model goes on with, call after call, each with its own change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from cintervene.errors import ModelError
from cintervene.methods.guard.output_shift import OutputPosition

__all__ = ["Call", "Change", "Sequences", "follow"]


@dataclass(frozen=True, eq=False)
class Change:
    """A change of rank 1 for each sequence of a batch."""

    left: Tensor
    right: Tensor

    @classmethod
    def of(cls, count: int, rows: Tensor, left: Tensor, right: Tensor) -> Change:
        """Changes of some sequences; the others stay as they are."""
        whole = [torch.zeros(count, part.shape[1]).to(part) for part in (left, right)]
        for some, part in zip(whole, (left, right), strict=True):
            some[rows.to(part.device)] = part
        return cls(whole[0], whole[1])

    def __call__(self, inputs: Tensor, outputs: Tensor) -> Tensor:
        """Outputs (batch, positions, d_out) of the changed weights."""
        along = torch.einsum("bqi,bi->bq", inputs.float(), self.right)
        moved = along[:, :, None] * self.left[:, None, :]
        return (outputs.float() + moved).to(outputs.dtype)


@dataclass(eq=False)
class Sequences:
    """A batch on its way: all tokens so far, -1 where they are not known."""

    tokens: list[list[int]]
    change: Change | None = None

    def select(self, order: Tensor) -> None:
        """Go on with these, in this order, as beam search does."""
        self.tokens = [self.tokens[index] for index in order.tolist()]
        if self.change is not None:
            at = order.to(self.change.left.device)
            self.change = Change(self.change.left[at], self.change.right[at])


def follow(cache: Any, sequences: WeakKeyDictionary[Any, Sequences]) -> None:
    """Let sequences be reordered whenever their cache is."""
    original: Callable[[Tensor], None] = cache.reorder_cache
    own = sequences[cache]

    def reorder(beam_idx: Tensor) -> None:
        own.select(beam_idx)
        original(beam_idx)

    cache.reorder_cache = reorder


@dataclass(eq=False)
class Call:
    """One call of the model as it goes on."""

    sequences: Sequences
    past: int
    mask: Tensor | None
    inputs: Tensor = field(default_factory=lambda: torch.empty(0))
    outputs: Tensor = field(default_factory=lambda: torch.empty(0))
    state: Tensor = field(default_factory=lambda: torch.empty(0))
    normed: Tensor = field(default_factory=lambda: torch.empty(0))

    @property
    def length(self) -> int:
        """Positions of this call."""
        return self.state.shape[1]

    def positions(self, kept: int) -> tuple[Tensor, Tensor]:
        """Rows and positions that are about to say a token of the answer.

        Of a prompt it is the last token; of what follows all whose logits are kept.
        """
        count = len(self.sequences.tokens)
        if self.past:
            rows = torch.arange(count).repeat_interleave(kept)
            return rows, torch.arange(self.length - kept, self.length).repeat(count)
        last = torch.full((count,), self.length - 1)
        if self.mask is not None and self.mask.ndim == 2 and kept == self.length:
            own = self.mask[:, -self.length :].cpu().long()
            last = (own * torch.arange(1, self.length + 1)).argmax(dim=1)
        return torch.arange(count), last

    def place(self, rows: Tensor, columns: Tensor, logits: Tensor) -> OutputPosition:
        """What passed the end of the model there."""
        inputs, outputs, state = (
            x.detach()[rows, columns] for x in (self.inputs, self.outputs, self.state)
        )
        return OutputPosition(inputs, outputs, state, logits)

    def check_kept(self, normed: Tensor) -> None:
        """Refuse logits of other positions than the last ones."""
        if not torch.equal(self.normed[:, self.length - normed.shape[1] :], normed):
            raise ModelError(
                "the head was given other states than the last ones of the call; under "
                "a guard logits_to_keep has to be a number"
            )
