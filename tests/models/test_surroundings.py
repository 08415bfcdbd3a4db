# SPDX-License-Identifier: Apache-2.0
"""What callers set for arithmetic does not alter what is found and measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from support.guarded import guard, said, step
from support.interventions import random_intervention
from support.little_defences import little_defence
from support.saved_models import save_tiny_model
from support.tiny_models import make_tiny_model

import cintervene as ci
from cintervene.activations.capture import capture
from cintervene.activations.scoring import divergence
from cintervene.errors import InterventionError, ModelError
from cintervene.intervention.adapter import AdapterIntervention
from cintervene.models import find_unembedding
from cintervene.models.surroundings import PRODUCTS

IDS = torch.arange(1, 9).view(1, 8)
close = torch.testing.assert_close
Context = Callable[[], AbstractContextManager[Any]]


@contextmanager
def short_products() -> Iterator[None]:
    """As many set it for their GPU; some CPUs multiply in bfloat16 then."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def short_default() -> Iterator[None]:
    torch.set_default_dtype(torch.bfloat16)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def elsewhere() -> Iterator[None]:
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


CONTEXTS: dict[str, Context] = {
    "autocast": partial(torch.autocast, "cpu", dtype=torch.bfloat16),
    "inference mode": torch.inference_mode,
    "short products": short_products,
    "short default type": short_default,
    "default device": elsewhere,
}


@pytest.fixture(params=CONTEXTS)
def context(request: pytest.FixtureRequest) -> Context:
    return CONTEXTS[request.param]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Any:
    place = save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")
    return ci.models.load(place, dtype="float32")


def settings() -> list[Any]:
    return [
        *(one.fp32_precision for one in PRODUCTS), torch.is_autocast_enabled("cpu"),
        torch.is_inference_mode_enabled(), torch.get_default_dtype(),
        torch.get_default_device(), torch.get_float32_matmul_precision(),
    ]  # fmt: skip


def logits(model: Any) -> Any:
    with torch.no_grad():
        return model(IDS).logits


@pytest.mark.parametrize("name", ["pcr", "tsr", "gate"])
def test_the_change_is_the_same(tiny: Any, name: str, context: Context) -> None:
    options = little_defence(name) | {"layers": [1]}
    expected = ci.defend(*tiny, **options)
    with context():
        before = settings()
        assert ci.defend(*tiny, **options).digest == expected.digest
        assert settings() == before


def test_single_measures_are_the_same(context: Context) -> None:
    model = make_tiny_model("gemma2")
    states = torch.randn(2, 5, 24, generator=torch.Generator().manual_seed(0))
    rows = capture(model, [[5, 9, 3]], [1])[1]
    kl = divergence(find_unembedding(model), *states)
    with context():
        again = capture(model, [[5, 9, 3]], [1])[1]
        assert torch.equal(again.inputs, rows.inputs)
        assert torch.equal(again.outputs, rows.outputs)
        assert (divergence(find_unembedding(model), *states) == kl).all()


@pytest.mark.parametrize("name", ["autocast", "inference mode"])
def test_changes_are_applied_and_taken_back(name: str) -> None:
    model = make_tiny_model("llama")
    change, base = random_intervention(model), logits(model)
    with change.applied(model):
        expected = logits(model)
    with CONTEXTS[name]():
        made = random_intervention(model)
        assert made.digest == change.digest
        made.apply(model)
    assert torch.equal(logits(model), expected)
    with CONTEXTS[name]():
        made.revert(model)
    assert torch.equal(logits(model), base)


def test_an_adapter_adds_in_float32() -> None:
    model = make_tiny_model("llama")
    module = model.model.layers[1].mlp.down_proj
    x = torch.randn(3, 40, generator=torch.Generator().manual_seed(0))
    change = AdapterIntervention(random_intervention(model, [1], size=30.0))
    (update,) = change.updates.values()
    with CONTEXTS["autocast"](), torch.no_grad():
        plain = module(x)
        change.apply(model)
        added = module(x) - plain
    exact = x.double() @ torch.from_numpy(update.matrix()).double().T
    # What is returned is rounded once, to what the cast has made of its type.
    close(added.double(), exact, rtol=0.01, atol=0.01 * float(exact.abs().max()))


@pytest.mark.parametrize("name", ["autocast", "inference mode"])
def test_a_guard_keeps_its_words_out(name: str) -> None:
    model = make_tiny_model("llama", max_position_embeddings=1024)
    with CONTEXTS[name]():
        own = guard(model, strength=30.0)
        plain = step(model, 12)
        with own:
            found = step(model, 12)
    spoken = []
    for answer in (plain, found):
        rows = answer.sequences.tolist()
        size = len(rows[0]) - 12
        spoken.append(sum(len(said(row[:size], row[size:])) for row in rows))
    assert own.activity.shifted > 0
    assert spoken[1] == 0


def test_weights_made_in_inference_mode(tmp_path: Path) -> None:
    place = save_tiny_model(tmp_path / "tiny")
    model, tokenizer = ci.models.load(place)
    with torch.inference_mode():
        model = model.float()
    change = random_intervention(model, [1])
    found = ci.defend(model, tokenizer, **little_defence("pcr") | {"layers": [1]})
    with pytest.raises(InterventionError, match=r"down_proj.*inference mode.*outside"):
        found.apply(model)
    with pytest.raises(ModelError, match=r"made in inference mode.*outside"):
        ci.defend(model, tokenizer, **little_defence("tsr") | {"layers": [1]})
    base = logits(model)
    with AdapterIntervention(change).applied(model):
        assert not torch.equal(logits(model), base)
