# SPDX-License-Identifier: Apache-2.0
"""A tiny model at one place or at several: host, pretended devices, both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cintervene.models import find_decoder
from support.saved_models import save_tiny_model

accelerate = pytest.importorskip("accelerate")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

# Sizes that nothing else has, so that a tensor's shape tells what it is.
HIDDEN, INNER, VOCABULARY, LAYERS = 24, 104, 256, 4
FIRST, SECOND = "fakegpu:0", "fakegpu:1"


def save(directory: Path, **changes: Any) -> Path:
    """Save the model that the others place."""
    sizes = {"num_hidden_layers": LAYERS, "intermediate_size": INNER}
    return save_tiny_model(directory, **(sizes | changes))


def load(saved: Path, **options: Any) -> Any:
    """The model on the host.

    Attention is spelled out: torch's kernel for it on the CPU rounds in its own way.
    """
    options = {"attn_implementation": "eager"} | options
    return transformers.AutoModelForCausalLM.from_pretrained(saved, **options).eval()


def on_one(saved: Path) -> Any:
    return load(saved).to(FIRST)


def on_two(saved: Path) -> Any:
    """Layers, and the final norm, on two devices; a tied head with the embedding."""
    model = load(saved)
    head = FIRST if model.config.tie_word_embeddings else SECOND
    return _dispatched(model, [FIRST, FIRST, SECOND, SECOND], SECOND, head)


def partly_in_memory(saved: Path) -> Any:
    """A layer is brought from the host for each call."""
    return _dispatched(load(saved), [FIRST, "cpu", FIRST, FIRST], FIRST, FIRST)


def all_in_memory(saved: Path) -> Any:
    """All is brought from the host for each call."""
    device = torch.device(FIRST)
    return accelerate.cpu_offload(load(saved), execution_device=device)


PLACES: list[Callable[[Path], Any]] = [on_one, on_two, partly_in_memory, all_in_memory]


def split(model: Any) -> Any:
    """Any model with the upper half of its layers, and what follows, on the second."""
    layers = find_decoder(model).layers_name
    count = len(model.get_submodule(layers))
    places = {f"{layers}.{i}": (FIRST, SECOND)[2 * i >= count] for i in range(count)}
    passed = False
    for name, module in model.named_modules():
        passed = passed or name.startswith(layers)
        if not name.startswith(layers) and not any(True for _ in module.children()):
            places[name] = SECOND if passed and "emb" not in name else FIRST
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if head.weight is embedding.weight:
        places["lm_head"] = FIRST
    return accelerate.dispatch_model(model, places, main_device=FIRST)


def _dispatched(model: Any, layers: list[str], norm: str, head: str) -> Any:
    places = {f"model.layers.{i}": place for i, place in enumerate(layers)}
    places |= {"model.embed_tokens": FIRST, "model.rotary_emb": FIRST}
    places |= {"model.norm": norm, "lm_head": head}
    return accelerate.dispatch_model(model, places, main_device=FIRST)
