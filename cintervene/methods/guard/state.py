# SPDX-License-Identifier: Apache-2.0
"""What a guard knows of the sequences that a model goes on with, call after call.

It is kept with the key-value cache of these sequences, and follows whatever is done to
that: beams are reordered, drafts are cropped, rows are chosen and repeated, and copies
are made of what a prompt left.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor

__all__ = [
    "RankOneUpdates", "SequenceState", "States", "follow_cache", "leave_cache",
    "past_length",
]  # fmt: skip


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

    def shift(self, inputs: Tensor) -> Tensor:
        """What the change adds to outputs, (batch, ..., d_out) float32.

        Parameters
        ----------
        inputs : Tensor
            (batch, ..., d_in).
        """
        along = torch.einsum("b...i,bi->b...", inputs.float(), self.right)
        return torch.einsum("b...,bo->b...o", along, self.left)


@dataclass(eq=False)
class SequenceState:
    """The sequences of a batch so far.

    Methods have the names of those of caches that do the same to keys and values.

    Attributes
    ----------
    tokens : list of list of int
        All tokens of each, -1 where they are not known.
    updates : RankOneUpdates or None
        What was solved for their prompts.
    """

    tokens: list[list[int]]
    updates: RankOneUpdates | None = None

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Go on with these, in this order, as beam search does."""
        self.tokens = [list(self.tokens[index]) for index in beam_idx.tolist()]
        if self.updates is not None:
            self.updates = self.updates.select(beam_idx)

    batch_select_indices = reorder_cache

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Go on with each so many times."""
        rows = torch.arange(len(self.tokens))
        self.reorder_cache(rows.repeat_interleave(repeats))

    def crop(self, tokens_to_remove: int) -> None:
        """Take back so many of the last tokens, a number below zero."""
        if tokens_to_remove:
            self.tokens = [row[: -abs(tokens_to_remove)] for row in self.tokens]

    def reset(self) -> None:
        """Forget the tokens, as a static cache does."""
        self.tokens, self.updates = [[] for _ in self.tokens], None


States = WeakKeyDictionary[Any, SequenceState]

FOLLOWED = (
    "reorder_cache", "batch_select_indices", "batch_repeat_interleave", "crop", "reset",
)  # fmt: skip


class _Followed:
    """A method of one cache, after which the state does the same."""

    def __init__(self, cache: Any, name: str, states: States) -> None:
        # A cache that held itself would keep its memory until the next collection.
        self._cache, self._name, self._states = ref(cache), name, states

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        cache = self._cache()
        getattr(type(cache), self._name)(cache, *args, **kwargs)
        if cache in self._states:
            getattr(self._states[cache], self._name)(*args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Followed:
        """The method of the copy, whose state is a copy too."""
        cache = self._cache()
        copied = memo[id(cache)]
        if cache in self._states and copied not in self._states:
            self._states[copied] = copy(self._states[cache])
        return _Followed(copied, self._name, self._states)


def follow_cache(cache: Any, state: SequenceState, states: States) -> None:
    """Keep a state with a cache, whatever is done to that."""
    states[cache] = state
    for name in FOLLOWED:
        if hasattr(type(cache), name):
            setattr(cache, name, _Followed(cache, name, states))


def leave_cache(cache: Any) -> None:
    """Take back what `follow_cache` did to a cache."""
    for name in FOLLOWED:
        vars(cache).pop(name, None)


def past_length(cache: Any, state: SequenceState | None) -> int:
    """How many tokens a cache has read.

    Where it only holds the states of recurrent layers, which have no length, as many as
    the state knows of; one that is unknown where there is no state.
    """
    if cache is None:
        return 0
    try:
        return int(cache.get_seq_length())
    except ValueError:
        if state is not None:
            return len(state.tokens[0])
        return int(cache.has_previous_state())
