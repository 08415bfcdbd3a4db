# SPDX-License-Identifier: Apache-2.0
"""The stack of decoder layers of a model, found by a probe."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch import nn

from cintervene.errors import ArgumentError, ModelError
from cintervene.models.broken import refuse_broken
from cintervene.models.replay import check_replay
from cintervene.models.sharded import check_whole_model
from cintervene.models.trace import Call, same_values, trace
from cintervene.models.wrapped import named_modules, submodule, unwrapped


@dataclass(frozen=True, eq=False)
class Decoder:
    """The stack of decoder layers of a model.

    Attributes
    ----------
    model : nn.Module
        The model it was found in.
    module : nn.Module
        The module that owns the layers, callable with `input_ids`, without the head.
    name : str
        Its path in the model.
    layers : nn.ModuleList
    layers_name : str
        Path of the list.
    hidden_size : int
    calls : list of Call
        The trace it was found in.
    others : list of int or None
        How much each layer returns besides the hidden state: see `Call`.
    hands_on : bool
        Whether layers hand something on to later ones in a dict that all are given, as
        keys and values that later layers share.
    """

    model: nn.Module
    module: nn.Module
    name: str
    layers: nn.ModuleList
    layers_name: str
    hidden_size: int
    calls: list[Call]
    others: list[int | None]
    hands_on: bool

    @property
    def n_layers(self) -> int:
        """How many layers it has."""
        return len(self.layers)


def find_decoder(model: nn.Module) -> Decoder:
    """Find the chain of decoder layers of `model`, by a forward pass of three tokens.

    Raises
    ------
    ModelError
        No list of modules, or more than one, is called as a chain on the hidden state;
        or a layer cannot be called alone.
    """
    model = unwrapped(model)
    check_whole_model(model)
    config = text_config(model)
    calls = trace(model)
    refuse_broken(model, calls)
    chains = []
    for name, module in named_modules(model):
        if (
            isinstance(module, nn.ModuleList)
            and len(module) == config.num_hidden_layers
        ):
            width = _chain_width(module, calls)
            if width is not None and width == config.hidden_size:
                chains.append((name, module))
    if len(chains) != 1:
        names = ", ".join(name for name, _ in chains) or "none"
        streams = _parallel_states(model, config, calls)
        if not chains and streams > 1:
            names = f"layers that hand on {streams} hidden states side by side"
        raise ModelError(
            f"{type(model).__name__}: expected one list of "
            f"{config.num_hidden_layers} decoder layers called in sequence on a hidden "
            f"state of {config.hidden_size}, found: {names}; this architecture is not "
            "supported"
        )
    layers_name, layers = chains[0]
    name = layers_name.rpartition(".")[0]
    module = submodule(model, name)
    chain = _chain(layers, calls)
    return Decoder(
        model, module, name, layers, layers_name, config.hidden_size, calls,
        [call.others for call in chain], check_replay(model, module, chain),
    )  # fmt: skip


def resolve_layers(layers: Iterable[int] | None, n_layers: int) -> list[int]:
    """Sort layer indices, negative ones counted from the end.

    Raises
    ------
    ArgumentError
        There are none, the model has no such layer, or one is named twice.
    """
    if layers is None:
        return list(range(n_layers))
    wanted = [int(layer) for layer in layers]
    for layer in wanted:
        if not -n_layers <= layer < n_layers:
            raise ArgumentError(
                f"layers: got {layer}, expected indices in "
                f"[{-n_layers}, {n_layers - 1}]"
            )
    if not wanted:
        raise ArgumentError("layers: got none, expected at least one layer index")
    found = [layer % n_layers for layer in wanted]
    twice = next((one for one in found if found.count(one) > 1), None)
    if twice is not None:
        raise ArgumentError(
            f"layers: got {wanted}, which names layer {twice} twice; name each once"
        )
    return sorted(found)


def requested_layers(layers: object, n_layers: int) -> list[int] | None:
    """Resolve a method's parameter `layers`: sorted indices, or None for `"auto"`."""
    if layers == "auto":
        return None
    if isinstance(layers, str) or not isinstance(layers, Iterable):
        raise ArgumentError(
            f'layers: got {layers!r}; expected "auto" or layer indices, e.g. [14, 16]'
        )
    return resolve_layers(layers, n_layers)


@dataclass(frozen=True)
class TextConfig:
    """What a model's configuration says of its decoder."""

    num_hidden_layers: int
    hidden_size: int
    intermediate_size: int | None


def text_config(model: nn.Module) -> TextConfig:
    """Read the configuration of a language model.

    Raises
    ------
    ModelError
        It names no depth or width.
    """
    config = getattr(model, "config", None)
    text = getattr(config, "get_text_config", lambda: config)()
    depth = getattr(text, "num_hidden_layers", None)
    width = getattr(text, "hidden_size", None)
    if not isinstance(depth, int) or not isinstance(width, int):
        raise ModelError(
            f"model: got {type(model).__name__} whose config names no "
            "num_hidden_layers and hidden_size, expected a language model of "
            "transformers"
        )
    inner = getattr(text, "intermediate_size", None)
    return TextConfig(depth, width, inner if isinstance(inner, int) else None)


def _parallel_states(
    model: nn.Module, config: TextConfig, calls: Sequence[Call]
) -> int:
    """Return how many hidden states a token has between layers (Gemma 3n); 0: unknown.

    What a layer adds then is not what the head reads, but is mixed into each of them by
    weights that depend on the token.
    """
    embedding: Any = getattr(model, "get_input_embeddings", lambda: None)()
    tokens = [call.y.shape[:-1].numel() for call in calls if call.module is embedding]
    for module in model.modules():
        if (
            isinstance(module, nn.ModuleList)
            and len(module) == config.num_hidden_layers
            and len(chain := _chain(module, calls)) == len(module)
            and tokens
        ):
            return chain[0].x.numel() // (config.hidden_size * tokens[0])
    return 0


def _chain(layers: nn.ModuleList, calls: Sequence[Call]) -> list[Call]:
    return [call for call in calls if any(call.module is layer for layer in layers)]


def _chain_width(layers: nn.ModuleList, calls: Sequence[Call]) -> int | None:
    """Return the width of the hidden state if `layers` form a chain, else None."""
    chain = _chain(layers, calls)
    if [call.module for call in chain] != list(layers):
        return None
    if not all(same_values(before.y, after.x) for before, after in pairwise(chain)):
        return None
    fits = all(c.x.ndim == 3 and c.x.shape == c.y.shape for c in chain)
    return chain[0].x.shape[-1] if fits else None
