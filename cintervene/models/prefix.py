# SPDX-License-Identifier: Apache-2.0
"""Tokens that many sequences begin with, run once: their keys and values are kept."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, DynamicCache

from cintervene.models.lower import Arguments
from cintervene.models.targets import Decoder, Target
from cintervene.models.trace import evaluating

__all__ = ["Prefix", "common_length"]


def common_length(sequences: Sequence[Sequence[int]]) -> int:
    """How many tokens all sequences begin with."""
    first, last = min(sequences), max(sequences)
    shared = 0
    for one, other in zip(first, last, strict=False):
        if one != other:
            break
        shared += 1
    return shared


class Prefix:
    """Keys and values of the first tokens of many sequences, in every layer.

    They hold as long as the layers' outputs there do not change.

    Parameters
    ----------
    decoder : Decoder
    ids : sequence of int
        May be empty.
    target : Target
        Its inputs at these tokens are kept too.

    Attributes
    ----------
    inputs : Tensor
        (length, d_in) inputs of the target.
    """

    def __init__(self, decoder: Decoder, ids: Sequence[int], target: Target) -> None:
        self.length = len(ids)
        self.inputs = target.weight.new_empty((0, target.d_in))
        self._cache: Any = None
        if ids:
            self._run(decoder, ids, target)

    def _run(self, decoder: Decoder, ids: Sequence[int], target: Target) -> None:
        def watch(_module: nn.Module, args: Any, _y: Tensor) -> None:
            self.inputs = args[0].reshape(-1, target.d_in)

        self._cache = DynamicCache(config=decoder.module.config)
        device = next(decoder.module.parameters()).device
        handle = target.module.register_forward_hook(watch)
        try:
            with evaluating(decoder.module):
                decoder.module(
                    input_ids=torch.tensor([list(ids)], device=device),
                    past_key_values=self._cache,
                    use_cache=True,
                )
        finally:
            handle.remove()

    def past(self, batch: int) -> DynamicCache | None:
        """A cache for so many rows, which a model may add to; None without tokens."""
        if self._cache is None:
            return None
        cache = copy.copy(self._cache)
        cache.layers = [copy.copy(layer) for layer in self._cache.layers]
        for layer in cache.layers:
            layer.keys = layer.keys.expand(batch, *layer.keys.shape[1:])
            layer.values = layer.values.expand(batch, *layer.values.shape[1:])
        return cache

    def renew(self, arguments: Arguments, batch: int) -> Arguments:
        """Put a fresh cache where a layer's noted arguments hold a used one."""
        if self._cache is None:
            return arguments

        def fresh(value: Any) -> Any:
            return self.past(batch) if isinstance(value, Cache) else value

        args, kwargs = arguments
        return tuple(map(fresh, args)), {k: fresh(v) for k, v in kwargs.items()}
