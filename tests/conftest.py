# SPDX-License-Identifier: Apache-2.0
"""Shared fixtures: tiny random-weight models of every supported architecture."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest

# Spinning OpenMP threads make operations on tiny tensors a hundred times slower when
# the cores are busy. The variable is read once, when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

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


@pytest.fixture(autouse=True)
def no_kept_scores(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let every test compare layers by itself, not find what an earlier one kept."""
    module = sys.modules.get("cintervene.methods.common.layer_scores")
    if module is not None:
        place = cache(lambda: tmp_path_factory.mktemp("kept"))
        monkeypatch.setattr(module, "cache_directory", place)


@pytest.fixture(scope="session")
def smollm2() -> Any:
    """SmolLM2-135M-Instruct and its tokenizer, fetched once if need be."""
    models = pytest.importorskip("cintervene.models")
    errors = pytest.importorskip("cintervene.errors")
    try:
        return models.load("smollm2")
    except errors.ModelError as error:
        if "could not download" in str(error):
            pytest.skip(str(error))
        raise


@pytest.fixture
def tiny_model() -> Callable[..., Any]:
    """Return the builder of tiny models: `tiny_model("llama", num_hidden_layers=2)`."""
    return make_tiny_model


@pytest.fixture(params=sorted(ARCHITECTURES))
def any_model(request: pytest.FixtureRequest) -> Any:
    """One tiny model of each supported architecture."""
    return make_tiny_model(request.param)


@pytest.fixture(params=["down_proj", "o_proj"])
def matrix(request: pytest.FixtureRequest) -> Any:
    """Which projection of a layer is changed."""
    return request.param


@pytest.fixture(params=["baseline", "avx2", "avx512"])
def kernels(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run the test with one table of C kernels after the other."""
    from cintervene import _core

    chosen = _core.config()["cpu"]
    try:
        _core.select_kernels(request.param)
    except ValueError:
        pytest.skip(f"this processor has no {request.param}")
    yield request.param
    _core.select_kernels(chosen)
