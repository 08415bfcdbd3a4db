# SPDX-License-Identifier: Apache-2.0
"""A name given for a model, a path for a change, two in each other's place."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from support.interventions import random_intervention
from support.saved_models import save_tiny_model

import cintervene as ci
from cintervene import evaluate, export, models

Call = Callable[..., Any]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    return models.load(save_tiny_model(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture(scope="module")
def change(loaded: tuple[Any, Any]) -> ci.Intervention:
    return random_intervention(loaded[0], [0, 1])


OF_MODELS: dict[str, Call] = {
    "defend": lambda m, t, _: ci.defend(m, t, forbid=["bad"]),
    "gate": lambda m, t, _: ci.defend(m, t, method="gate"),
    "Guard": lambda m, t, _: ci.Guard(m, t, forbid=["bad"]),
    "explain": lambda m, _, __: models.explain(m),
    "find_decoder": lambda m, _, __: models.find_decoder(m),
    "measure": lambda m, t, i: evaluate.measure(m, t, i, forbid=["bad"]),
    "apply": lambda m, _, i: i.apply(m),
    "revert": lambda m, _, i: i.revert(m),
    "applied": lambda m, _, i: i.applied(m).__enter__(),
}
OF_TOKENIZERS = ("defend", "gate", "Guard", "measure")


@pytest.mark.parametrize("name", OF_MODELS)
def test_what_is_no_model_is_named(
    name: str, loaded: tuple[Any, Any], change: ci.Intervention
) -> None:
    _, tokenizer = loaded
    for given in ("smollm2", None, tokenizer, {}):
        kind = type(given).__name__
        with pytest.raises(ci.ArgumentError, match=rf"^model: got {kind}; .*load"):
            OF_MODELS[name](given, tokenizer, change)


@pytest.mark.parametrize("name", OF_TOKENIZERS)
def test_what_is_no_tokenizer_is_named(
    name: str, loaded: tuple[Any, Any], change: ci.Intervention
) -> None:
    model, _ = loaded
    for given in ("smollm2", None, model, {}):
        kind = type(given).__name__
        with pytest.raises(ci.ArgumentError, match=rf"^tokenizer: got {kind}, .*load"):
            OF_MODELS[name](model, given, change)


@pytest.mark.parametrize(
    "call",
    [
        lambda m, t, i, out: evaluate.measure(m, t, i, forbid=["bad"]),
        lambda m, t, i, out: evaluate.measure_requests(m, t, i, limit=1),
        lambda m, t, i, out: export.lora(i, out),
        lambda m, t, i, out: export.gguf(i, out, base=out),
        lambda m, t, i, out: export.checkpoint(i, out, out),
    ],
)
def test_what_is_no_intervention_is_named(
    call: Call, loaded: tuple[Any, Any], tmp_path: Path
) -> None:
    for given in ("intervention.safetensors", tmp_path, None):
        kind = type(given).__name__
        with pytest.raises(
            ci.ArgumentError, match=rf"^intervention: got {kind}; .*Intervention\.load"
        ):
            call(*loaded, given, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("factor", ["2", None, float("inf"), 1e300])
def test_what_nothing_is_scaled_by_is_named(
    factor: Any, change: ci.Intervention
) -> None:
    with pytest.raises(ci.ArgumentError, match=re.escape(f"factor: got {factor!r}")):
        change.scale(factor)
