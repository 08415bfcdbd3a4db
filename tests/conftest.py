# SPDX-License-Identifier: Apache-2.0
"""Shared fixtures: tiny random-weight models of every supported architecture."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest

pytest.register_assert_rewrite("support")

from support.tiny_models import ARCHITECTURES, make_tiny_model

# Spinning OpenMP threads make operations on tiny tensors a hundred times slower when
# the cores are busy. The variable is read once, when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


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
