# SPDX-License-Identifier: Apache-2.0
"""What a model's `forward` is called with, and what it returns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from inspect import Parameter, signature
from typing import Any

import torch
from torch import Tensor, nn

from cintervene.errors import ModelError
from cintervene.methods.guard.forward_call import ForwardCall
from cintervene.methods.guard.packed import PackedTexts, is_packed
from cintervene.methods.guard.state import (
    FOLLOWED,
    SequenceState,
    States,
    past_length,
)

__all__ = ["ForwardArguments", "check_followable", "returned_cache"]

# What transformers' models call the states of earlier tokens.
CACHES = ("past_key_values", "cache_params")
OTHER_STATES = ("state", "mems", "past_buckets_states")


class ForwardArguments:
    """Reads the calls of a model.

    Parameters
    ----------
    model : nn.Module
    """

    def __init__(self, model: nn.Module) -> None:
        self._signature = signature(model.forward)
        kinds = self._signature.parameters.values()
        self._rest = [one.name for one in kinds if one.kind is Parameter.VAR_KEYWORD]
        self._packed = PackedTexts()
        self._embedded = EmbeddedTokens(model)

    def call(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], states: States
    ) -> ForwardCall:
        """The call with these arguments.

        Parameters
        ----------
        args, kwargs
            Of `forward`.
        states : mapping
            What is known of the sequences of caches.
        """
        given = self._signature.bind_partial(*args, **kwargs).arguments
        for name in self._rest:
            given |= given.pop(name, {})
        if is_packed(given):
            return self._packed.call(given)
        cache = next(
            (given[name] for name in CACHES if given.get(name) is not None), None
        )
        state = states.get(cache) if is_cache(cache) else None
        past = past_length(cache, state)
        new = self._new_tokens(given)
        if not past or state is None or len(state.tokens) != len(new):
            state = SequenceState([[-1] * past for _ in new])
        state.tokens = [
            [*old[:past], *tokens]
            for old, tokens in zip(state.tokens, new, strict=True)
        ]
        return ForwardCall(state, past, len(new[0]), given)

    def _new_tokens(self, given: Mapping[str, Any]) -> list[list[int]]:
        """Tokens of the call, -1 where they are not known."""
        ids = given.get("input_ids")
        if ids is None:
            return self._embedded.tokens(given["inputs_embeds"])
        found: list[list[int]] = ids.tolist()
        return found


class EmbeddedTokens:
    """Tells tokens by their embeddings.

    Parameters
    ----------
    model : nn.Module
    """

    # Values of an embedding that are compared, and tokens that are embedded at once.
    _VALUES, _CHUNK = 16, 4096

    def __init__(self, model: nn.Module) -> None:
        self._embedding = getattr(model, "get_input_embeddings", lambda: None)()
        self._known: dict[bytes, int] = {}

    def tokens(self, embedded: Tensor) -> list[list[int]]:
        """Tokens of embeddings (batch, length, hidden); -1 where it is none's."""
        if not self._known and self._embedding is not None:
            self._read(self._embedding)
        rows, length = embedded.shape[:2]
        keys = self._keys(embedded.flatten(0, 1))
        found = [self._known.get(key, -1) for key in keys]
        return [found[row * length : (row + 1) * length] for row in range(rows)]

    def _read(self, embedding: Any) -> None:
        weight = embedding.weight
        for start in range(0, weight.shape[0], self._CHUNK):
            ids = torch.arange(start, min(start + self._CHUNK, weight.shape[0]))
            with torch.no_grad():
                rows = embedding(ids.to(weight.device)[None])[0]
            for token, key in enumerate(self._keys(rows), start):
                self._known.setdefault(key, token)

    def _keys(self, rows: Tensor) -> list[bytes]:
        values = rows[:, : self._VALUES].detach().float().cpu().numpy()
        return [row.tobytes() for row in values]


def check_followable(model: nn.Module) -> None:
    """Refuse a model whose state of earlier tokens cannot be followed.

    Raises
    ------
    ModelError
        It is none of transformers' caches, or the model cannot keep one.
    """
    ids = torch.tensor([[1, 2]], device=next(model.parameters()).device)
    try:
        with torch.no_grad():
            output = model(input_ids=ids, use_cache=True)
    except Exception as error:
        raise ModelError(
            f"{type(model).__name__} cannot be called with use_cache=True ({error}), "
            "which a guard needs"
        ) from error
    kept = [getattr(output, name, None) for name in (*CACHES, *OTHER_STATES)]
    kept = [one for one in kept if one is not None]
    if kept and not any(map(is_cache, kept)):
        raise ModelError(
            f"{type(model).__name__} keeps what it has read in a "
            f"{type(kept[0]).__name__}, which a guard cannot follow; a guard needs a "
            "model with a cache of transformers"
        )


def is_cache(value: Any) -> bool:
    """Whether it is a cache of transformers, which can be followed."""
    return value is not None and all(hasattr(value, name) for name in FOLLOWED)


def returned_cache(output: Any) -> Any:
    """The cache that a model returns, None where there is none."""
    values: Iterable[Any] = output.values() if isinstance(output, Mapping) else output
    return next((one for one in values if is_cache(one)), None)
