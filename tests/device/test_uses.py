# SPDX-License-Identifier: Apache-2.0
"""What is done with a model beside defending it, on two devices as on the host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from support.guarded import guard, step
from support.interventions import random_intervention
from support.little_defences import REQUESTS, SENTENCES
from support.placed_models import load, on_two, save, split
from support.tiny_models import ARCHITECTURES, make_tiny_model

from cintervene import attacks, export
from cintervene.activations.capture import capture
from cintervene.attacks.ablation import direction_removed
from cintervene.evaluate import EvaluationSize, measure, measure_requests
from cintervene.intervention.adapter import AdapterIntervention
from cintervene.models import find_targets, find_unembedding

close = torch.testing.assert_close
IDS = [[5, 9, 3, 7, 11, 2, 8], [5, 9, 3, 1], [4, 4]]
LITTLE = EvaluationSize(
    forbidden=4, benign=4, related=3, prompts=4, answer_tokens=4, texts=2,
    forbidden_requests=4, benign_requests=4, request_tokens=4,
)  # fmt: skip


def make_pair(name: str) -> list[Any]:
    """A model on the host, and its twin on two devices."""
    options = {"attn_implementation": "eager", "max_position_embeddings": 1024}
    models = [make_tiny_model(name, **options) for _ in range(2)]
    return [models[0], split(models[1])]


@pytest.fixture(params=sorted(ARCHITECTURES))
def pair(request: pytest.FixtureRequest) -> list[Any]:
    """Of each architecture."""
    return make_pair(request.param)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("models") / "tied")


@pytest.fixture
def tokenizer(saved: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(saved)


def test_parts_are_found_and_rows_captured(pair: list[Any], matrix: Any) -> None:
    found = [[(t.name, t.gain) for t in find_targets(m, matrix=matrix)] for m in pair]
    assert found[0] == found[1]
    scales = [find_unembedding(model).norm_weight.cpu() for model in pair]
    assert torch.equal(*scales)
    expected, rows = (capture(model, IDS, [1, 3], matrix=matrix) for model in pair)
    for layer, row in rows.items():
        assert row.inputs.device.type == "fakegpu"
        # Parts of a tensor are laid out in another way there, so kernels round apart.
        close(row.on_host().inputs, expected[layer].inputs)
        close(row.on_host().outputs, expected[layer].outputs)


@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_a_guard_shifts_the_same(name: str) -> None:
    answers = []
    for model in make_pair(name):
        own = guard(model)
        with own:
            answers.append(step(model))
        assert own.activity.shifted > 0
    assert torch.equal(answers[0].sequences, answers[1].sequences.cpu())
    for expected, logits in zip(answers[0].logits, answers[1].logits, strict=True):
        close(logits.cpu(), expected)


def test_an_adapter_adds_the_same(pair: list[Any]) -> None:
    logits = []
    for model in pair:
        change = AdapterIntervention(random_intervention(model))
        with change.applied(model), torch.no_grad():
            logits.append(model(torch.tensor(IDS[:1])).logits.cpu())
    close(*logits)


def test_measures_are_the_same(saved: Path, tokenizer: Any) -> None:
    found = []
    for model in (load(saved), on_two(saved)):
        change = random_intervention(model)
        words = measure(model, tokenizer, change, forbid=["bad"], size=LITTLE)
        refusals = measure_requests(model, tokenizer, change, limit=4, tokens=4)
        found.append([one.to_dict() | {"seconds": 0} for one in (words, refusals)])
    assert found[0] == found[1]


@pytest.mark.parametrize("kind", [attacks.GCG, attacks.RelaxedPGD])
def test_attacks_find_the_same(saved: Path, tokenizer: Any, kind: Any) -> None:
    requests = [attacks.Request("one", REQUESTS[0])]
    cases = [
        attacks.run_attack(kind(model, tokenizer, steps=2), requests)
        for model in (load(saved), on_two(saved))
    ]
    assert cases[0] == cases[1]


def test_a_direction_is_removed_in_the_same_way(saved: Path, tokenizer: Any) -> None:
    logits = []
    for model in (load(saved), on_two(saved)):
        direction = attacks.refusal_direction(
            model, tokenizer, REQUESTS, SENTENCES, layer=1
        )
        with direction_removed(model, direction), torch.no_grad():
            logits.append(model(torch.tensor(IDS[:1])).logits.cpu())
    close(*logits)


@pytest.mark.model
def test_rows_of_smollm2_are_the_same(smollm2: Any) -> None:
    model, tokenizer = smollm2
    model.set_attn_implementation("eager")
    texts = ["The cat sat on the mat.", "To be or not to be"]
    expected = capture(model, texts, [3, 20], tokenizer=tokenizer)
    rows = capture(split(model), texts, [3, 20], tokenizer=tokenizer)
    for layer, row in rows.items():
        assert torch.equal(row.on_host().inputs, expected[layer].inputs)
        assert torch.equal(row.on_host().outputs, expected[layer].outputs)


def test_exports_are_the_same(saved: Path, tmp_path: Path) -> None:
    for name, model in (("host", load(saved)), ("devices", on_two(saved))):
        change = random_intervention(model)
        export.checkpoint(change, saved, tmp_path / name)
        export.lora(change, tmp_path / f"{name}-lora")
    for kind, file in (("", "model"), ("-lora", "adapter_model")):
        one, other = (
            (tmp_path / f"{name}{kind}" / f"{file}.safetensors").read_bytes()
            for name in ("host", "devices")
        )
        assert one == other
