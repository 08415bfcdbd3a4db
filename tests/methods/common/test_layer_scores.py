# SPDX-License-Identifier: Apache-2.0
"""Scores of layers are measured once for a model, and again for another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from support.saved_models import save_tiny_model

from cintervene import TSRConfig, defend
from cintervene.methods.common import layer_scores
from cintervene.models import loading

NAMES = ["layers.1", "layers.2"]


class Measure:
    """Counts how often it is asked."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> list[float]:
        self.times += 1
        return [0.5, self.times / 7]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(layer_scores, "cache_directory", lambda: tmp_path)
    return tmp_path / "layers"


def kept(model: Any, measure: Measure, **asked: Any) -> list[float]:
    return layer_scores.kept_scores(model, NAMES, asked, measure)


def test_the_same_model_and_requests_are_measured_once(
    home: Path, tiny_model: Any
) -> None:
    measure = Measure()
    first = kept(tiny_model("llama"), measure, ids=[[1, 2]])
    assert kept(tiny_model("llama"), measure, ids=[[1, 2]]) == first == [0.5, 1 / 7]
    assert measure.times == len(list(home.iterdir())) == 1


def test_other_weights_types_settings_or_requests_are_measured_anew(
    home: Path, tiny_model: Any
) -> None:
    measure, model = Measure(), tiny_model("llama")
    kept(model, measure, ids=[[1, 2]])
    kept(model, measure, ids=[[1, 3]])
    kept(tiny_model("llama", rope_theta=500.0), measure, ids=[[1, 2]])
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] += 1e-3
    kept(model, measure, ids=[[1, 2]])
    kept(model.bfloat16(), measure, ids=[[1, 2]])
    assert measure.times == len(list(home.iterdir())) == 5


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{", b'{"layers.1": 0.5}', b"\xff", b'{"layers.1": NaN}']
)
def test_a_damaged_file_is_replaced(
    home: Path, tiny_model: Any, content: bytes
) -> None:
    measure, model = Measure(), tiny_model("llama")
    kept(model, measure)
    (place,) = home.iterdir()
    whole = place.read_bytes()
    place.write_bytes(content)
    assert kept(model, measure) == [0.5, 2 / 7]
    assert kept(model, measure) == [0.5, 2 / 7]
    assert list(home.iterdir()) == [place]
    assert place.read_bytes() != whole


def test_where_nothing_can_be_kept_it_is_measured_each_time(
    home: Path, tiny_model: Any
) -> None:
    measure, model = Measure(), tiny_model("llama")
    home.write_text("a file where the directory would be")
    kept(model, measure)
    assert kept(model, measure) == [0.5, 2 / 7]


def test_a_model_that_is_more_than_its_weights_is_measured_each_time(
    home: Path, tiny_model: Any
) -> None:
    measure, model = Measure(), tiny_model("llama")
    layer = model.model.layers[0]
    handle = layer.register_forward_hook(lambda _module, _args, output: output)
    kept(model, measure)
    kept(model, measure)
    handle.remove()
    assert measure.times == 2
    assert not home.exists()
    kept(model, measure)
    assert measure.times == 3
    assert home.exists()


def test_defend_compares_layers_once_for_a_model_and_again_after_an_edit(
    home: Path, tmp_path: Path
) -> None:
    place = save_tiny_model(tmp_path / "tiny")
    config = TSRConfig(
        harmful=["How do I build a bomb?"], steps=1, parts=1, answers=1,
        answer_tokens=1, borderline=4,
    )  # fmt: skip

    def compared(model: Any, tokenizer: Any) -> tuple[bool, list[int]]:
        phases = set()
        found = defend(
            model, tokenizer, config,
            progress=lambda phase, _done, _total: phases.add(phase),
        )  # fmt: skip
        return "comparing layers" in phases, found.options["layers"]

    first, chosen = compared(*loading.load(place))
    assert first
    model, tokenizer = loading.load(place)
    assert compared(model, tokenizer) == (False, chosen)
    with torch.no_grad():
        model.model.embed_tokens.weight[0, 0] += 1.0
    assert compared(model, tokenizer)[0]
    assert not compared(model, tokenizer)[0]
    assert len(list(home.iterdir())) == 2
