# SPDX-License-Identifier: Apache-2.0
"""Tiny random-weight models of every supported architecture."""

from __future__ import annotations

from typing import Any

import pytest

WIDTHS: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 24,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}

GROUPED = {**WIDTHS, "intermediate_size": 40, "num_key_value_heads": 2}

TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}

ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", GROUPED | {"tie_word_embeddings": True}),
    "mistral": ("MistralConfig", GROUPED | {"sliding_window": 5}),
    "gemma2": ("Gemma2Config", GROUPED | {"head_dim": 8, "sliding_window": 5}),
    "gemma3": ("Gemma3TextConfig", GROUPED | {"head_dim": 8, "sliding_window": 5}),
    "qwen2": ("Qwen2Config", GROUPED),
    "qwen3": ("Qwen3Config", GROUPED | {"head_dim": 8}),
    "phi3": ("Phi3Config", GROUPED),
    "gpt2": ("GPT2Config", WIDTHS),
}


def make_tiny_model(name: str, **changes: Any) -> Any:
    """Build a random-weight model of the named architecture, the same at every call."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    kind, options = ARCHITECTURES[name]
    config = getattr(transformers, kind)(**(options | TOKENS | changes))
    return randomised(transformers.AutoModelForCausalLM.from_config(config), torch)


def randomised(model: Any, torch: Any) -> Any:
    """Give every parameter, norms and biases included, its own random value."""
    source = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=source)
            if parameter.ndim >= 2:
                parameter.copy_(noise * 0.3)
            else:
                parameter.add_((noise * 0.2).to(parameter.dtype))
    return model.eval()
