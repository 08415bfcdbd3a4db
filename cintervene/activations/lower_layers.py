# SPDX-License-Identifier: Apache-2.0
"""The decoder below a layer: run once, with what sequences begin with in common.

Prompts rendered by a chat template begin alike. What the lower layers make of that
beginning is computed once, and its keys and values serve all sequences that share it.

All batches go through a layer before any goes through the next, so that a layer that
is offloaded is read once for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, DynamicCache

from cintervene.activations.batches import common_length, padded
from cintervene.models.caches import (
    cache_of_length,
    forward_parameters,
    has_plain_cache,
    holds,
    nearly_same,
    new_cache,
    repeated_at,
    resumes,
)
from cintervene.models.decoder import Decoder
from cintervene.models.offload import device_of
from cintervene.models.replay import Arguments, idle
from cintervene.models.resident import in_turn, resident
from cintervene.models.trace import evaluating, first_tensor, probe_ids

__all__ = [
    "Arguments",
    "Entering",
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
    entering : Entering
        The beginning on its way: each layer has to be run for it before it is for what
        begins so.
    cache : DynamicCache
        Keys and values of the layers that were run.
    """

    tokens: tuple[int, ...]
    entering: Entering
    cache: DynamicCache

    @property
    def hidden(self) -> Tensor:
        """What enters the first layer above (1, tokens, hidden), once it is run."""
        return self.entering.hidden

    def begins(self, ids: Sequence[int]) -> bool:
        """Whether a sequence begins so and goes on."""
        size = len(self.tokens)
        return len(ids) > size and tuple(ids[:size]) == self.tokens


@dataclass(eq=False)
class Entering:
    """A batch on its way through the lower layers.

    Attributes
    ----------
    hidden : Tensor
        (sequences, length, hidden), what enters the layer to come; until the last of
        the lower ones without the prefix.
    below, arguments : dict of int to Arguments
        What each layer still to be run is called with besides: of the lower ones, and
        of the others.
    prefix : Prefix or None
        What all of the sequences begin with.
    """

    hidden: Tensor
    below: dict[int, Arguments]
    arguments: dict[int, Arguments]
    prefix: Prefix | None = None

    def run(self, layer: int, module: nn.Module) -> None:
        """Go through the next of the lower layers."""
        args, kwargs = self._own(self.below.pop(layer), layer)
        hidden = first_tensor(module(self.hidden, *args, **kwargs))
        assert hidden is not None
        self.hidden = hidden
        if not self.below and self.prefix is not None:
            begun = self.prefix.hidden.expand(len(hidden), -1, -1)
            self.hidden = torch.cat([begun, hidden], dim=1)

    def _own(self, arguments: Arguments, layer: int) -> Arguments:
        """Put a cache of this batch's own where a layer's arguments hold a prefix's.

        Of that layer alone, for as long as it runs.
        """
        if self.prefix is None:
            return arguments
        cache, count = self.prefix.cache, len(self.hidden)

        def own(value: Any) -> Any:
            return (
                repeated_at(cache, layer, count) if isinstance(value, Cache) else value
            )

        args, kwargs = arguments
        return tuple(map(own, args)), {key: own(v) for key, v in kwargs.items()}


class LowerLayers:
    """Runs the layers below `first`.

    Parameters
    ----------
    decoder : Decoder
    first : int
        The first layer that is not run.
    """

    def __init__(self, decoder: Decoder, first: int) -> None:
        self._decoder, self.first = decoder, first
        self._parameters = forward_parameters(decoder.module)

    def prefixes(self, parts: Sequence[Sequence[Sequence[int]]]) -> list[Prefix | None]:
        """Find the beginnings that are worth running once, where there are some.

        Keys and values are run together with what begins so, layer by layer; other
        states, whose length alone cannot be told beforehand, right away.

        Parameters
        ----------
        parts : sequence of sequence of sequence of int
            Parts of the sequences; each has a beginning of its own.
        """
        tokens = [shared_prefix(sequences) for sequences in parts]
        found: list[Prefix | None] = [None] * len(parts)
        if not any(map(_is_long, tokens)) or not self._shareable():
            return found
        begun = {
            at: (one, new_cache(self._decoder.model))
            for at, one in enumerate(tokens)
            if _is_long(one)
        }
        entering = [self._enter([one], cache) for one, cache in begun.values()]
        later = has_plain_cache(self._decoder.model)
        if not later:
            self.run(entering)
        pairs = zip(begun.items(), entering, strict=True)
        for (at, (one, cache)), entered in pairs:
            if later or cache.get_seq_length() == len(one):
                found[at] = Prefix(one, entered, cache)
        return found

    def _shareable(self) -> bool:
        """Whether a beginning can be run by itself."""
        decoder = self._decoder
        takes = "past_key_values" in self._parameters
        if self.first == 0 or not takes or decoder.hands_on:
            return False
        if not has_plain_cache(decoder.model):
            return resumes(decoder.model)
        return holds(decoder.model, "goes on in each layer", partial(_agrees, decoder))

    def begin(
        self, batches: Sequence[tuple[Sequence[Sequence[int]], Prefix | None]]
    ) -> list[Entering]:
        """Return batches as they enter the decoder, to be given to `run`.

        Parameters
        ----------
        batches : sequence of (sequence of sequence of int, Prefix or None)
            Sequences, which are padded on the right to the length of the longest, and
            what all of a batch begin with.
        """
        with resident(*self._beside()):
            return [self._begin(sequences, prefix) for sequences, prefix in batches]

    def _begin(
        self, sequences: Sequence[Sequence[int]], prefix: Prefix | None
    ) -> Entering:
        whole = padded(sequences)
        entering = self._enter(whole)
        if prefix is None:
            return entering
        size = len(prefix.tokens)
        rest = [one[size:] for one in whole]
        is_run = not prefix.entering.below
        past = prefix.cache if is_run else cache_of_length(self._decoder.model, size)
        behind = self._enter(rest, past)
        return Entering(behind.hidden, behind.below, entering.arguments, prefix)

    def _enter(
        self, ids: Sequence[Sequence[int]], cache: DynamicCache | None = None
    ) -> Entering:
        """Sequences of one length before the first layer."""
        hidden, noted = self._call(ids, 0, cache)
        below = {layer: noted[layer] for layer in range(self.first)}
        return Entering(hidden, below, self._above(noted))

    def run(
        self,
        entering: Sequence[Entering],
        passed: Callable[[Entering], object] | None = None,
    ) -> None:
        """Bring batches through the lower layers, layer by layer.

        Parameters
        ----------
        entering : sequence of Entering
            Afterwards `hidden` enters layer `first`.
        passed : callable, optional
            Called with a batch each time that one has gone through a layer.
        """
        layers = list(self._decoder.layers)[: self.first]
        shared = [one.prefix for one in entering if one.prefix is not None]
        before = [one.entering for one in dict.fromkeys(shared) if one.entering.below]
        with evaluating(self._decoder.module), closing(in_turn(layers)) as turns:
            for layer, module in enumerate(turns):
                for one in before:
                    one.run(layer, module)
                for one in entering:
                    one.run(layer, module)
                    if passed is not None:
                        passed(one)

    def _beside(self) -> list[nn.Module]:
        """What the decoder has besides its layers."""
        decoder = self._decoder
        return [one for one in decoder.module.children() if one is not decoder.layers]

    def _above(self, noted: dict[int, Arguments]) -> dict[int, Arguments]:
        return {k: v for k, v in noted.items() if k >= self.first}

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
        hidden, noted = self._call(ids, run, cache, mask)
        return hidden, self._above(noted)

    def _call(
        self,
        ids: Sequence[Sequence[int]],
        run: int,
        cache: DynamicCache | None = None,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, dict[int, Arguments]]:
        """`call` with the arguments of all layers that are not run."""
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
        hidden = tokens.new_empty(0) if record.hidden is None else record.hidden
        return hidden, record.arguments


def _agrees(decoder: Decoder) -> bool:
    """Whether layers make of what follows a prefix what they make of it in the whole.

    In one reading of an offloaded model.
    """
    model = decoder.model
    begin, (x, y, z) = probe_ids(model, 6).view(2, 3).tolist()
    sequences = [[*begin, x, y], [*begin, y, z]]
    lower, cache = LowerLayers(decoder, decoder.n_layers), new_cache(model)
    prefix = Prefix(tuple(begin), lower._enter([begin], cache), cache)
    both = lower.begin([(sequences, prefix), (sequences, None)])
    lower.run(both)
    return nearly_same(*(one.hidden[:, len(begin) :] for one in both))


def _is_long(tokens: Sequence[int]) -> bool:
    """Whether a beginning saves more than the calls that it needs."""
    return len(tokens) >= SHORTEST_PREFIX


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
