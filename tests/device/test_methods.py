# SPDX-License-Identifier: Apache-2.0
"""Every method, wherever the model is: the same change, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from support.little_defences import DEFENCES, little_defence
from support.placed_models import (
    PLACES,
    all_in_memory,
    load,
    on_one,
    on_two,
    partly_in_memory,
    save,
)

import cintervene as ci
from cintervene.intervention.intervention import Intervention

IDS = torch.tensor([[5, 9, 3, 7, 11, 2, 8]])


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("models") / "tied")


@pytest.fixture(scope="module")
def untied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("models") / "untied"
    return save(place, tie_word_embeddings=False)


def found(model: Any, saved: Path, name: str) -> Intervention:
    tokenizer = transformers.AutoTokenizer.from_pretrained(saved)
    return ci.defend(model, tokenizer, **little_defence(name))


@cache
def on_the_host(saved: Path, name: str) -> Intervention:
    return found(load(saved), saved, name)


def logits(model: Any) -> Any:
    first = next(model.parameters()).device
    with torch.no_grad():
        return model(IDS if first.type == "meta" else IDS.to(first)).logits.cpu()


@pytest.mark.parametrize("place", [on_one, on_two])
@pytest.mark.parametrize("name", DEFENCES)
def test_the_change_is_the_one_found_on_the_host(
    saved: Path, name: str, place: Callable[[Path], Any]
) -> None:
    assert found(place(saved), saved, name).digest == on_the_host(saved, name).digest


@pytest.mark.parametrize("place", [partly_in_memory, all_in_memory])
@pytest.mark.parametrize("name", ["pcr", "pcr, neurons", "tsr", "gate"])
def test_so_it_is_with_layers_kept_on_the_host(
    saved: Path, name: str, place: Callable[[Path], Any]
) -> None:
    assert found(place(saved), saved, name).digest == on_the_host(saved, name).digest


@pytest.mark.parametrize("name", ["pcr", "tsr", "gate"])
def test_so_it_is_with_a_head_of_its_own_on_the_second(untied: Path, name: str) -> None:
    change = found(on_two(untied), untied, name)
    assert change.digest == on_the_host(untied, name).digest


@pytest.mark.parametrize("place", PLACES)
def test_it_is_applied_and_taken_back(
    saved: Path, place: Callable[[Path], Any]
) -> None:
    host, model = load(saved), place(saved)
    change, base = on_the_host(saved, "pcr"), logits(model)
    assert torch.equal(base, logits(host))
    with change.applied(host):
        expected = logits(host)
    assert not torch.equal(expected, base)
    change.apply(model)
    assert torch.equal(logits(model), expected)
    change.revert(model)
    assert torch.equal(logits(model), base)
