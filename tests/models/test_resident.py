# SPDX-License-Identifier: Apache-2.0
"""Offloaded layers are read once for all that goes through them, and two at most."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from support.counted_reads import Reads, counted
from support.saved_models import save_tiny_model

import cintervene as ci
from cintervene.activations.layer_stream import Asked, LayerStream, finals
from cintervene.models.decoder import find_decoder
from cintervene.models.offload import in_memory
from cintervene.models.resident import in_turn, resident
from cintervene.prompts.calibration import CalibrationSize
from cintervene.prompts.target_spans import TargetSpan

LAYERS = 6
BEGINNING = (5, 9, 2, 7, 3, 8)
LITTLE = CalibrationSize(
    starting=1, later=1, contrast_words=2, text_words=2, prompts=70, tune_prompts=2,
    tune_words=2, answer_tokens=3, texts=2, sentences=2, sentence_tokens=5,
    neighbours=1,
)  # fmt: skip
GIVEN = [(f"Say {number}.", f"That would be {number}.") for number in range(8)]
GIVEN += [("Is it good or bad?", "It is bad."), ("And this?", "Not so bad at all.")]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("saved") / "base"
    return save_tiny_model(directory, num_hidden_layers=LAYERS)


def load(saved: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(
        saved, dtype=torch.bfloat16
    ).eval()


@pytest.fixture
def on_disk(saved: Path, tmp_path: Path) -> tuple[Any, Reads]:
    return counted(load(saved), tmp_path / "folder")


def test_one_read_for_many_calls(on_disk: tuple[Any, Reads]) -> None:
    model, reads = on_disk
    layer = model.model.layers[2].mlp
    x = torch.ones(1, 24, dtype=torch.bfloat16)
    with torch.no_grad():
        expected = layer(x)
        assert reads.of_layer(2) == 1
        with resident(layer):
            # What is not called is not read.
            assert reads.of_layer(2) == 1
            assert torch.equal(layer(x), expected)
            assert torch.equal(layer(x), expected)
            assert reads.of_layer(2) == 2
        layer(x)
    assert reads.of_layer(2) == 3


def test_the_next_is_read_meanwhile_and_the_last_let_go(
    on_disk: tuple[Any, Reads],
) -> None:
    model, reads = on_disk
    seen = []
    x = torch.ones(1, 24, dtype=torch.bfloat16)
    for number, layer in enumerate(in_turn(list(model.model.layers))):
        with torch.no_grad():
            seen.append(layer.mlp(x))
        if number + 1 < LAYERS:
            assert reads.comes(number + 1)
    assert [reads.of_layer(layer) for layer in range(LAYERS)] == [1] * LAYERS
    assert reads.most_layers == 2
    assert all(name.startswith("reading") for name in reads.threads)
    again = [layer.mlp(x) for layer in model.model.layers]
    assert all(map(torch.equal, seen, again))


def test_it_may_end_early(on_disk: tuple[Any, Reads]) -> None:
    model, reads = on_disk
    with closing(in_turn(list(model.model.layers))) as turns:
        next(turns)
    before = reads.of_layer(0)
    model.model.layers[0].mlp(torch.ones(1, 24, dtype=torch.bfloat16))
    assert reads.of_layer(0) == before + 1


def test_what_cannot_be_read_is_said(on_disk: tuple[Any, Reads]) -> None:
    model, _ = on_disk
    hook = model.model.layers[1].mlp.up_proj._hf_hook
    hook.weights_map = {}
    with pytest.raises(KeyError, match="weight"):
        list(in_turn(list(model.model.layers)))
    assert hook.weights_map == {}


def test_nothing_is_done_for_what_is_there(saved: Path) -> None:
    layers = list(load(saved).model.layers)
    assert list(in_turn(layers)) == layers


def test_what_counts_in_memory_is_seen_through(tiny_model: Any) -> None:
    accelerate = pytest.importorskip("accelerate")
    model = accelerate.cpu_offload(tiny_model("llama"), execution_device="cpu")
    module = model.model.layers[1].mlp.down_proj
    kept = in_memory(module)
    assert kept is not None
    with resident(module):
        assert in_memory(module) is kept


def test_streams_share_what_is_read(on_disk: tuple[Any, Reads], saved: Path) -> None:
    """Whatever the batches; and what they see is what the whole model makes."""
    spans = [
        TargetSpan((*BEGINNING, *((7 * i + j) % 90 for j in range(i % 40 + 4))), 8)
        for i in range(60)
    ]
    asked = [Asked(spans), Asked(spans[:10], wanted=[[-1]] * 10)]
    model, reads = on_disk
    states = []
    for one in (load(saved), model):
        decoder = find_decoder(one)
        # Whether the model goes on from a prefix is tried out at first, once.
        LayerStream.several(decoder, asked, 1)
        reads.counts.clear()
        reads.most_layers = 0
        streams = LayerStream.several(decoder, asked, 4)
        states.append(finals(streams))
        assert len(streams[0]._batches) > 1
    assert all(map(torch.equal, *states))
    attention = "model.layers.{}.self_attn.q_proj.weight"
    counts = [reads.counts[attention.format(layer)] for layer in range(LAYERS)]
    # What sequences begin with goes before them in each layer.
    assert counts == [1] * LAYERS
    assert reads.most_layers <= 2


@pytest.mark.parametrize("given", [None, GIVEN], ids=["own answers", "given answers"])
def test_reads_of_a_whole_defence(
    on_disk: tuple[Any, Reads], saved: Path, given: Any
) -> None:
    model, reads = on_disk
    tokenizer = transformers.AutoTokenizer.from_pretrained(saved)
    options = {"forbid": ["bad"], "calibration": LITTLE, "answers": given}
    found = ci.defend(model, tokenizer, **options)
    assert found.options["hinge"] == "on"
    # The probe 2, whether a model goes on from a prefix 1, the texts 1, those to tune
    # on with them; a step of an answer 1, everyday ones and sentences together.
    steps = 0 if given else max(LITTLE.answer_tokens, LITTLE.sentence_tokens)
    assert max(map(reads.of_layer, range(LAYERS - 2))) == 4 + steps
    assert reads.most_layers <= 2
    if given:
        assert found.digest == ci.defend(load(saved), tokenizer, **options).digest
