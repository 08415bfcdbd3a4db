# SPDX-License-Identifier: Apache-2.0
"""What sequences begin with, run once: keys and values at tokens that do not change.

Many sequences share a prefix (a prompt with several answers), and all prompts of a chat
template share their first tokens. Each is run once. Prefixes of different length are
padded between the shared beginning and the tokens of their own.

Where ranks share work, each runs the prefixes that its own sequences begin with.

Recurrent states cannot be padded, nor taken apart. Where layers keep such, what enters
each layer at the prefixes is kept, and goes through the layer again with what follows.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, DynamicCache

from cintervene.activations.batches import group_by_length, shared_length
from cintervene.activations.lower_layers import LowerLayers, attention_window
from cintervene.models.caches import has_plain_cache, new_cache
from cintervene.models.decoder import Decoder
from cintervene.models.replay import Arguments
from cintervene.models.targets import Target
from cintervene.models.trace import hooked
from cintervene.utils.lazy import lazy
from cintervene.utils.ranks import is_own, of_one

__all__ = ["SIMILAR", "PrefixCache", "PrefixGroup"]

# Few large batches are worth some padding: see `batches.group_by_length`.
SIMILAR = 0.6


@dataclass(frozen=True, eq=False)
class PrefixGroup:
    """Prefixes that were run together.

    Attributes
    ----------
    members : list of int
        Which of the prefixes given.
    mask : Tensor
        (prefixes, length) int64, 0 where a row is padding.
    cache : Cache or None
        Keys and values; None where the prefixes are empty.
    entering : dict of int to Tensor
        (prefixes, length, hidden) what enters each layer, where that is kept instead.
    """

    members: list[int]
    mask: Tensor
    cache: Any
    entering: dict[int, Tensor] = field(default_factory=dict)

    @property
    def length(self) -> int:
        """How many tokens go through the layers again."""
        return self.mask.shape[1] if self.entering else 0

    def past(self, rows: Tensor, layers: slice = slice(None)) -> Any:
        """A cache of some rows, free to be added to in the given layers."""
        if self.cache is None:
            return None
        past = copy.copy(self.cache)
        past.layers = list(self.cache.layers)
        past.layers[layers] = [copy.copy(layer) for layer in past.layers[layers]]
        for layer in past.layers[layers]:
            layer.keys, layer.values = layer.keys[rows], layer.values[rows]
        return past

    def forget(self, first: int) -> None:
        """Give the memory of the layers below `first` back."""
        for index in [index for index in self.entering if index < first]:
            del self.entering[index]
        if self.cache is not None:
            for layer in self.cache.layers[:first]:
                layer.keys = layer.values = None

    def renew(self, arguments: Arguments, rows: Tensor, layer: int) -> Arguments:
        """Put a fresh cache where a layer's noted arguments hold a used one."""
        if self.cache is None:
            return arguments

        def fresh(value: Any) -> Any:
            only = slice(layer, layer + 1)
            return self.past(rows, only) if isinstance(value, Cache) else value

        args, kwargs = arguments
        return tuple(map(fresh, args)), {k: fresh(v) for k, v in kwargs.items()}


class PrefixCache:
    """Runs prefixes through the first layers.

    They are planned at first, and run by `run`.

    Parameters
    ----------
    decoder : Decoder
    targets : sequence of Target
        Their inputs at the prefixes' tokens are kept too.
    prefixes : sequence of sequence of int
        Different ones. All of them empty, or none.
    longest : int
        Tokens of the longest sequence that begins so.
    batch_tokens : int
    layers : int
        How many.

    Attributes
    ----------
    members : list of list of int
        Which prefixes are run together, group by group.
    groups : list of PrefixGroup or None
        None in the place of a group that no sequence of this rank begins with.
    shared : int
        How many tokens all prefixes begin with, or 0 where they are not shared.
    plain : bool
        Whether keys and values are kept, and not what enters the layers.
    """

    def __init__(
        self,
        decoder: Decoder,
        targets: Sequence[Target],
        prefixes: Sequence[Sequence[int]],
        longest: int,
        batch_tokens: int,
        layers: int,
    ) -> None:
        self._decoder, self._targets, self._layers = decoder, list(targets), layers
        self._lower = LowerLayers(decoder, decoder.n_layers)
        # Padding takes up room in a window of attention.
        within = longest <= attention_window(decoder.module.config)
        self.plain = has_plain_cache(decoder.model) and not decoder.hands_on
        share = within and self.plain
        self.shared = max(shared_length(prefixes), 0) if share else 0
        self._prefixes = [list(prefix) for prefix in prefixes]
        lengths = [len(prefix) - self.shared for prefix in prefixes]
        similar = SIMILAR if self.plain else 1.0
        self.members = group_by_length(lengths, batch_tokens, similar)
        self.groups: list[PrefixGroup | None] = [None] * len(self.members)
        # Of the shared beginning, and of each group: the rows of each target.
        self._begun: list[Tensor] = []
        self._inputs: list[list[Tensor]] = [[] for _ in self.members]

    def run(self, owners: Sequence[Collection[int]]) -> None:
        """Run the groups that this rank is an owner of.

        Parameters
        ----------
        owners : sequence of collection of int
            For each group the numbers of what needs it, any of which may be the rank's.
        """
        self._owners = [min(numbers) for numbers in owners]
        self._watching = self._begun
        beginning = self._begin(self._prefixes[0][: self.shared])
        rests = [prefix[self.shared :] for prefix in self._prefixes]
        run = self._run if self.plain else self._run_whole
        for number, members in enumerate(self.members):
            if any(map(is_own, owners[number])):
                self._watching = self._inputs[number]
                self.groups[number] = run(rests, members, beginning)

    @lazy
    def inputs(self) -> list[Tensor]:
        """For each target (n, d_in): at the shared beginning, once, and at own tokens.

        Of all groups, so all ranks have to ask for them together.
        """
        found = [
            of_one("inputs at prefixes", partial(self._inputs.__getitem__, at), owner)
            for at, owner in enumerate(self._owners)
        ]
        parts = [self._begun, *found]
        self._begun, self._inputs = [], []
        inputs = []
        for index, target in enumerate(self._targets):
            # Of layers that were not run there are none.
            rows = [
                part[index].to(target.device) for part in parts if index < len(part)
            ]
            inputs.append(torch.cat(rows) if rows else _no_rows(target))
        return inputs

    def _begin(self, ids: Sequence[int]) -> PrefixGroup:
        if not ids:
            return PrefixGroup([0], torch.ones((1, 0), dtype=torch.int64), None)
        cache = new_cache(self._decoder.model)
        mask = torch.ones((1, len(ids)), dtype=torch.int64)
        self._call([ids], cache, mask)
        return PrefixGroup([0], mask, cache)

    def _run(
        self, rests: Sequence[list[int]], members: list[int], beginning: PrefixGroup
    ) -> PrefixGroup:
        length = max(len(rests[i]) for i in members)
        rows = torch.zeros(len(members), dtype=torch.int64)
        begun = beginning.mask[rows]
        if length == 0:
            return PrefixGroup(members, begun, None)
        lengths = torch.tensor([len(rests[i]) for i in members])
        real = torch.arange(length) >= length - lengths[:, None]
        mask = torch.cat([begun, real.long()], dim=1)
        padded = [[rests[i][0]] * (length - len(rests[i])) + rests[i] for i in members]
        cache = beginning.past(rows, slice(self._layers))
        if cache is None:
            cache = new_cache(self._decoder.model)
        self._call(padded, cache, mask)
        return PrefixGroup(members, mask, cache)

    def _run_whole(
        self, rests: Sequence[list[int]], members: list[int], _beginning: PrefixGroup
    ) -> PrefixGroup:
        """Run prefixes of one length; keep what enters the layers to come."""
        ids = [rests[i] for i in members]
        mask = torch.ones((len(ids), len(ids[0])), dtype=torch.int64)
        entering: dict[int, Tensor] = {}

        def note(layer: int) -> Any:
            def hook(_module: nn.Module, args: Any, kwargs: Any) -> None:
                entering[layer] = args[0] if args else kwargs["hidden_states"]

            return hook

        if ids[0]:
            first = self._targets[0].layer
            with ExitStack() as stack:
                for layer in range(first, self._layers):
                    module = self._decoder.layers[layer]
                    handle = module.register_forward_pre_hook(
                        note(layer), with_kwargs=True
                    )
                    stack.callback(handle.remove)
                self._call(ids, None, mask)
        return PrefixGroup(members, mask, None, entering)

    def _call(
        self,
        ids: Sequence[Sequence[int]],
        cache: DynamicCache | None,
        mask: Tensor,
    ) -> None:
        real = mask[:, -len(ids[0]) :].bool()

        def watch(_module: nn.Module, args: Any, _y: Tensor) -> None:
            x = args[0].reshape(*real.shape, -1)
            # Layer by layer, which is target by target.
            self._watching.append(x[real.to(x.device)])

        with ExitStack() as stack:
            for target in self._targets:
                if target.layer < self._layers:
                    stack.enter_context(hooked(target.module, watch))
            self._lower.call(ids, self._layers, cache, None if cache is None else mask)


def _no_rows(target: Target) -> Tensor:
    return torch.empty((0, target.d_in), dtype=target.dtype, device=target.device)
