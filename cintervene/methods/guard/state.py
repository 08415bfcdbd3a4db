# SPDX-License-Identifier: Apache-2.0
"""What a guard knows of the sequences that a model goes on with, call after call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from cintervene.errors import ModelError
from cintervene.methods.guard.output_shift import OutputPosition

__all__ = ["ForwardCall", "RankOneUpdates", "SequenceState", "follow_cache"]


@dataclass(frozen=True, eq=False)
class RankOneUpdates:
    """A change of the weight of rank 1 for each sequence of a batch.

    Attributes
    ----------
    left, right : Tensor
        (batch, d_out) and (batch, d_in) float32; zero where nothing is changed.
    """

    left: Tensor
    right: Tensor

    @classmethod
    def of(
        cls, count: int, rows: Tensor, left: Tensor, right: Tensor
    ) -> RankOneUpdates:
        """Those of some sequences among `count`; nothing is changed for the others."""
        whole = [torch.zeros(count, part.shape[1]).to(part) for part in (left, right)]
        for factor, part in zip(whole, (left, right), strict=True):
            factor[rows.to(part.device)] = part
        return cls(whole[0], whole[1])

    def select(self, order: Tensor) -> RankOneUpdates:
        """Those of some sequences, in this order."""
        index = order.to(self.left.device)
        return RankOneUpdates(self.left[index], self.right[index])

    def __call__(self, inputs: Tensor, outputs: Tensor) -> Tensor:
        """Outputs (batch, positions, d_out) of the changed weights."""
        along = torch.einsum("bqi,bi->bq", inputs.float(), self.right)
        added = along[:, :, None] * self.left[:, None, :]
        return (outputs.float() + added).to(outputs.dtype)


@dataclass(eq=False)
class SequenceState:
    """The sequences of a batch so far.

    Attributes
    ----------
    tokens : list of list of int
        All tokens of each, -1 where they are not known.
    updates : RankOneUpdates or None
        What was solved for their prompts.
    """

    tokens: list[list[int]]
    updates: RankOneUpdates | None = None

    def select(self, order: Tensor) -> None:
        """Go on with these, in this order, as beam search does."""
        self.tokens = [self.tokens[index] for index in order.tolist()]
        if self.updates is not None:
            self.updates = self.updates.select(order)


def follow_cache(cache: Any, states: WeakKeyDictionary[Any, SequenceState]) -> None:
    """Let a state be reordered whenever its key-value cache is."""
    original: Callable[[Tensor], None] = cache.reorder_cache
    state = states[cache]

    def reorder(beam_idx: Tensor) -> None:
        state.select(beam_idx)
        original(beam_idx)

    cache.reorder_cache = reorder


@dataclass(eq=False)
class ForwardCall:
    """One forward call of the model, filled in as it goes on.

    Attributes
    ----------
    state : SequenceState
        Of the sequences it goes on with.
    past : int
        Tokens that are in the cache already.
    mask : Tensor or None
        The attention mask that was given.
    inputs, outputs : Tensor
        (batch, length, d_in) and (batch, length, d_out), of the last down projection.
    residual, normed : Tensor
        (batch, length, hidden), before and after the final norm.
    """

    state: SequenceState
    past: int
    mask: Tensor | None
    inputs: Tensor = field(default_factory=lambda: torch.empty(0))
    outputs: Tensor = field(default_factory=lambda: torch.empty(0))
    residual: Tensor = field(default_factory=lambda: torch.empty(0))
    normed: Tensor = field(default_factory=lambda: torch.empty(0))

    @property
    def length(self) -> int:
        """Positions of this call."""
        return self.residual.shape[1]

    def positions(self, kept: int) -> tuple[Tensor, Tensor]:
        """Rows and positions whose next token belongs to the answer.

        Of a prompt it is the last token; of what follows all whose logits are kept.
        """
        count = len(self.state.tokens)
        if self.past:
            rows = torch.arange(count).repeat_interleave(kept)
            return rows, torch.arange(self.length - kept, self.length).repeat(count)
        last = torch.full((count,), self.length - 1)
        if self.mask is not None and self.mask.ndim == 2 and kept == self.length:
            mask = self.mask[:, -self.length :].cpu().long()
            last = (mask * torch.arange(1, self.length + 1)).argmax(dim=1)
        return torch.arange(count), last

    def at(self, rows: Tensor, columns: Tensor, logits: Tensor) -> OutputPosition:
        """What passed the end of the model there."""
        inputs, outputs, residual = (
            x.detach()[rows, columns]
            for x in (self.inputs, self.outputs, self.residual)
        )
        return OutputPosition(inputs, outputs, residual, logits)

    def check_kept(self, normed: Tensor) -> None:
        """Refuse logits of other positions than the last ones."""
        if not torch.equal(self.normed[:, self.length - normed.shape[1] :], normed):
            raise ModelError(
                "the head was given other states than the last ones of the call; under "
                "a guard logits_to_keep has to be a number"
            )
