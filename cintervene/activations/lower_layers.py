# SPDX-License-Identifier: Apache-2.0
"""The decoder below a layer: run once, with what sequences begin with in common.

Prompts rendered by a chat template begin alike. What the lower layers make of that
beginning is computed once, and its keys and values serve all sequences that share it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from cintervene.activations.batches import common_length
from cintervene.models.caches import forward_parameters, new_cache, repeated, resumes
from cintervene.models.decoder import Decoder
from cintervene.models.offload import device_of
from cintervene.models.replay import Arguments, idle
from cintervene.models.trace import evaluating

__all__ = [
    "Arguments",
    "LowerLayers",
    "Prefix",
    "attention_window",
    "shared_prefix",
]

# Shorter beginnings save less than the calls that they need.
SHORTEST_PREFIX = 4


@dataclass(frozen=True, eq=False)
class Prefix:
    """A beginning and what the lower layers make of it.

    Attributes
    ----------
    tokens : tuple of int
    hidden : Tensor
        (1, tokens, hidden) what enters the first layer above.
    cache : DynamicCache
        Keys and values of the layers below.
    """

    tokens: tuple[int, ...]
    hidden: Tensor
    cache: DynamicCache

    def begins(self, ids: Sequence[int]) -> bool:
        """Whether a sequence begins so and goes on."""
        size = len(self.tokens)
        return len(ids) > size and tuple(ids[:size]) == self.tokens


class LowerLayers:
    """Runs the layers below `first`.

    Parameters
    ----------
    decoder : Decoder
    first : int
        The first layer that is not run.
    """

    def __init__(self, decoder: Decoder, first: int) -> None:
        self._decoder, self._first = decoder, first
        self._parameters = forward_parameters(decoder.module)

    def prefix(self, sequences: Sequence[Sequence[int]]) -> Prefix | None:
        """Run the beginning that is worth running once, if there is one."""
        tokens = shared_prefix(sequences)
        if len(tokens) < SHORTEST_PREFIX or not self._shareable():
            return None
        cache = new_cache(self._decoder.model)
        hidden, _ = self.call([tokens], self._first, cache)
        if cache.get_seq_length() != len(tokens):
            return None
        return Prefix(tokens, hidden, cache)

    def _shareable(self) -> bool:
        """Whether a beginning can be run by itself."""
        decoder = self._decoder
        takes = "past_key_values" in self._parameters
        alone = self._first > 0 and takes and not decoder.hands_on
        return alone and resumes(decoder.model)

    def run(
        self, sequences: Sequence[Sequence[int]], prefix: Prefix | None = None
    ) -> tuple[Tensor, dict[int, Arguments]]:
        """Return what enters layer `first`, and the other arguments from there on.

        Parameters
        ----------
        sequences : sequence of sequence of int
            Padded on the right to the length of the longest.
        prefix : Prefix, optional
            What all of them begin with.

        Returns
        -------
        hidden : Tensor
            (sequences, length, hidden).
        arguments : dict of int to Arguments
            Those of each layer from `first` on.
        """
        length = max(len(one) for one in sequences)
        # Any token will do as padding; repeating one keeps "pad token" warnings away.
        padded = [[*one, *[one[0]] * (length - len(one))] for one in sequences]
        if prefix is None:
            return self.call(padded, self._first)
        _, arguments = self.call(padded, 0)
        rest = [one[len(prefix.tokens) :] for one in padded]
        cache = repeated(prefix.cache, len(rest))
        hidden, _ = self.call(rest, self._first, cache)
        begun = prefix.hidden.expand(len(rest), -1, -1)
        return torch.cat([begun, hidden], dim=1), arguments

    def call(
        self,
        ids: Sequence[Sequence[int]],
        run: int,
        cache: DynamicCache | None = None,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, dict[int, Arguments]]:
        """Call the decoder with only its first `run` layers at work.

        Parameters
        ----------
        ids : sequence of sequence of int
            Of one length.
        run : int
        cache : DynamicCache, optional
            Keys and values of what comes before; those of the layers run are added.
        mask : Tensor, optional
            (sequences, length) int64 of what comes before and the tokens themselves, 0
            for padding, which takes up no position.

        Returns
        -------
        hidden : Tensor
            (sequences, length, hidden), what enters layer `run`.
        arguments : dict of int to Arguments
            Of the layers from `first` on.
        """
        device = device_of(self._decoder.module)
        tokens = torch.tensor(ids, dtype=torch.int64, device=device)
        past = 0 if cache is None else cache.get_seq_length()
        options: dict[str, Any] = {} if cache is None else {"past_key_values": cache}
        if mask is None:
            mask = torch.ones(len(ids), past + tokens.shape[1], dtype=torch.int64)
        elif "position_ids" in self._parameters:
            places = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, past:]
            options["position_ids"] = places.to(device)
        with (
            idle(list(self._decoder.layers), self._decoder.others, run) as record,
            evaluating(self._decoder.module),
        ):
            self._decoder.module(
                input_ids=tokens,
                attention_mask=mask.to(device),
                use_cache=cache is not None,
                **options,
            )
        kept = {k: v for k, v in record.arguments.items() if k >= self._first}
        hidden = tokens.new_empty(0) if record.hidden is None else record.hidden
        return hidden, kept


def attention_window(config: Any) -> float:
    """How many tokens every layer sees."""
    window = getattr(config, "sliding_window", None)
    return float("inf") if window is None else float(window)


def shared_prefix(sequences: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """The beginning whose sharing saves most tokens; () if none does.

    If more than half of the sequences begin alike, the one in the middle of their
    lexicographic order begins so too: only its beginnings are looked at.
    """
    middle = sorted(list(one) for one in sequences)[len(sequences) // 2]
    # One token at least has to be left in each.
    common = sorted(
        (min(common_length([one, middle]), len(one) - 1) for one in sequences),
        reverse=True,
    )
    saved = [length * others for others, length in enumerate(common)]
    best = max(range(len(saved)), key=saved.__getitem__)
    return tuple(middle[: common[best]]) if saved[best] > 0 else ()
