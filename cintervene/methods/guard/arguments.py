# SPDX-License-Identifier: Apache-2.0
"""What a model's `forward` is called with, and what it returns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from inspect import Parameter, signature
from typing import Any

from torch import nn

from cintervene.methods.guard.forward_call import ForwardCall
from cintervene.methods.guard.state import (
    FOLLOWED,
    SequenceState,
    States,
    past_length,
)

__all__ = ["ForwardArguments", "returned_cache"]

# What transformers' models call the states of earlier tokens.
CACHES = ("past_key_values", "cache_params")


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
        cache = next((given[name] for name in CACHES if given.get(name)), None)
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
        """Tokens of the call, -1 where only embeddings are given."""
        ids = given.get("input_ids")
        if ids is not None:
            found: list[list[int]] = ids.tolist()
            return found
        rows, length = given["inputs_embeds"].shape[:2]
        return [[-1] * length for _ in range(rows)]


def is_cache(value: Any) -> bool:
    """Whether it is a cache of transformers, which can be followed."""
    return value is not None and all(hasattr(value, name) for name in FOLLOWED)


def returned_cache(output: Any) -> Any:
    """The cache that a model returns, None where there is none."""
    values: Iterable[Any] = output.values() if isinstance(output, Mapping) else output
    return next((one for one in values if is_cache(one)), None)
