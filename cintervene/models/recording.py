# SPDX-License-Identifier: Apache-2.0
"""What the layers of a decoder are called with, noted without running them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from cintervene.models.targets import Decoder
from cintervene.models.trace import evaluating

__all__ = ["Arguments", "Record", "recording"]

# What a layer is called with besides the hidden state.
Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class Record:
    """Runs batches up to a layer and notes what each later layer was called with."""

    def __init__(self, decoder: Decoder, first: int) -> None:
        self.decoder, self.first = decoder, first
        self.hidden: Tensor | None = None
        self.arguments: dict[int, Arguments] = {}
        layers = decoder.layers
        wrapped = {id(call.module): call.wrapped for call in decoder.calls}
        self.wrapped = [wrapped[id(layer)] for layer in layers]

    def run(
        self, ids: Sequence[Sequence[int]], past: Any = None, past_length: int = 0
    ) -> tuple[Tensor, dict[int, Arguments]]:
        """Run one batch, padded on the right.

        Parameters
        ----------
        ids : sequence of sequence of int
        past : Cache, optional
            Keys and values of tokens that come before each row; it is used up.
        past_length : int
            How many tokens those are.

        Returns
        -------
        hidden : Tensor
            (batch, length, hidden), what enters the first noted layer.
        arguments : dict of int to Arguments
            By layer.
        """
        length = max(len(one) for one in ids)
        # Any token will do as padding; repeating one keeps "pad token" warnings away.
        padded = [[*one, *[one[0]] * (length - len(one))] for one in ids]
        device = next(self.decoder.module.parameters()).device
        tokens = torch.tensor(padded, dtype=torch.int64, device=device)
        mask = torch.ones(
            (len(padded), past_length + length), dtype=torch.int64, device=device
        )
        with evaluating(self.decoder.module):
            self.decoder.module(
                input_ids=tokens,
                attention_mask=mask,
                past_key_values=past,
                use_cache=past is not None,
            )
        assert self.hidden is not None
        hidden, arguments = self.hidden, self.arguments
        self.hidden, self.arguments = None, {}
        return hidden, arguments

    def stand_in(self, layer: int) -> Callable[..., Any]:
        """What to call instead of a noted layer."""

        def forward(*args: Any, **kwargs: Any) -> Any:
            kwargs = dict(kwargs)
            hidden = args[0] if args else kwargs.pop("hidden_states")
            if layer == self.first:
                self.hidden = hidden
            self.arguments[layer] = (tuple(args[1:]), kwargs)
            return (hidden,) if self.wrapped[layer] else hidden

        return forward


@contextmanager
def recording(decoder: Decoder, first: int) -> Iterator[Record]:
    """Let the layers from `first` on do nothing but note their arguments."""
    record = Record(decoder, first)
    patched = list(enumerate(decoder.layers))[first:]
    before = [layer.__dict__.get("forward") for _, layer in patched]
    try:
        for index, layer in patched:
            layer.__dict__["forward"] = record.stand_in(index)
        yield record
    finally:
        for (_, layer), forward in zip(patched, before, strict=True):
            layer.__dict__.pop("forward", None)
            if forward is not None:
                layer.__dict__["forward"] = forward
