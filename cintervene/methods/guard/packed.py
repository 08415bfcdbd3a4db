# SPDX-License-Identifier: Apache-2.0
"""Calls in which sequences are packed behind one another, as continuous batching does.

There sequences come and go from call to call, and a call only says where in memory the
keys and values of each lie. So it is remembered which token lies where.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from weakref import WeakKeyDictionary

from cintervene.errors import InterventionError
from cintervene.methods.guard.forward_call import ForwardCall
from cintervene.methods.guard.state import SequenceState

__all__ = ["PackedCall", "PackedTexts", "is_packed"]


@dataclass(eq=False)
class PackedCall(ForwardCall):
    """One row that holds several sequences.

    Attributes
    ----------
    texts : list of list of int
        All tokens of each that are known, those of this call last.
    ends : list of int
        The column behind each.
    """

    texts: Sequence[list[int]] = ()
    ends: Sequence[int] = ()

    @property
    def prompt(self) -> bool:
        """No change of the weight is kept, for a sequence is not met again by name."""
        return False

    def history(self, row: int, column: int, reach: int) -> Sequence[int]:
        """The last tokens of the sequence up to a position, that one included."""
        which = min(bisect_right(self.ends, column), len(self.ends) - 1)
        text = self.texts[which]
        end = len(text) - max(0, self.ends[which] - 1 - column)
        return text[max(0, end - reach) : end]


def is_packed(given: Mapping[str, Any]) -> bool:
    """Whether a call is one of continuous batching."""
    return given.get("write_index") is not None


class PackedTexts:
    """Which tokens lie in the memory of paged caches."""

    def __init__(self) -> None:
        self._tokens: WeakKeyDictionary[Any, dict[int, int]] = WeakKeyDictionary()

    def call(self, given: Mapping[str, Any]) -> PackedCall:
        """The call with these arguments.

        Raises
        ------
        InterventionError
            It does not say where the tokens that it goes on with lie.
        """
        if given.get("block_table") is not None:
            raise InterventionError(
                "continuous batching with block tables does not tell a guard which "
                "tokens it goes on with; use generate, or an attention without them"
            )
        known = self._tokens.setdefault(given["cache"], {})
        group = next(iter(given["cache"].cache_allocators.values()))
        reads = given["read_index"][group.index].tolist()
        lengths = given["cu_seq_lens_k"][group.layer_type].tolist()
        new = given["input_ids"][0].tolist()
        bounds = given["cu_seq_lens_q"].tolist()
        texts = []
        for (first, end), (start, stop) in zip(
            pairwise(bounds), pairwise(lengths), strict=True
        ):
            before = reads[start : stop - (end - first)]
            texts.append([*(known.get(slot, -1) for slot in before), *new[first:end]])
        writes = given["write_index"][group.index].tolist()
        known.update(zip(writes, new, strict=False))
        return PackedCall(
            SequenceState([new]), 0, len(new), given, texts=texts, ends=bounds[1:]
        )
