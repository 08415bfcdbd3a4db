# SPDX-License-Identifier: Apache-2.0
"""Models whose parameters accelerate keeps in memory or on a disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
accelerate = pytest.importorskip("accelerate")

from support.interventions import random_intervention
from support.saved_models import save_tiny_model

import cintervene as ci
from cintervene import export
from cintervene.activations.capture import capture
from cintervene.errors import InterventionError, ModelError
from cintervene.intervention.adapter import applicable_form
from cintervene.intervention.intervention import Intervention
from cintervene.models import find_targets, find_unembedding
from cintervene.models.offload import device_of, in_memory, parameter_value
from cintervene.prompts.calibration import CalibrationSize

IDS = [[5, 9, 3, 7, 11, 2, 8], [5, 9, 3, 1], [4, 4]]
CPU = torch.device("cpu")
LITTLE = CalibrationSize(
    starting=1, later=1, contrast_words=4, text_words=4,
    prompts=12, tune_prompts=4, answer_tokens=8,
)  # fmt: skip
Offload = Callable[[Any, Path], Any]


def in_a_dict(model: Any, _folder: Path) -> Any:
    return accelerate.cpu_offload(model, execution_device=CPU)


def in_a_loader(model: Any, _folder: Path) -> Any:
    """As `dispatch_model` offloads to memory what does not fit on a GPU."""
    state = {name: value.detach() for name, value in model.state_dict().items()}
    loader = accelerate.utils.OffloadedWeightsLoader(state_dict=state)
    accelerate.hooks.attach_align_device_hook(model, CPU, True, loader)
    return model


def on_a_disk(model: Any, folder: Path) -> Any:
    return accelerate.disk_offload(model, folder, execution_device=CPU)


def logits(model: Any) -> Any:
    with torch.no_grad():
        return model(torch.tensor(IDS[:1])).logits


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(params=[in_a_dict, in_a_loader, on_a_disk])
def offload(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Any], Any]:
    def act(model: Any) -> Any:
        moved = request.param(model, tmp_path / "offloaded")
        assert all(parameter.is_meta for parameter in moved.parameters())
        return moved

    return act


@pytest.fixture(params=[in_a_dict, in_a_loader])
def offload_to_memory(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return lambda model: request.param(model, tmp_path)


def test_targets_are_read(any_model: Any, offload: Any, matrix: Any) -> None:
    expected = [
        (t.name, t.weight.detach().clone(), t.dtype)
        for t in find_targets(any_model, matrix=matrix)
    ]
    found = find_targets(offload(any_model), matrix=matrix)
    for target, (name, weight, dtype) in zip(found, expected, strict=True):
        assert (target.name, target.dtype, target.device) == (name, dtype, CPU)
        assert torch.equal(target.weight, weight)


def test_what_is_captured_is_the_same(any_model: Any, offload: Any) -> None:
    expected = capture(any_model, IDS, [1, 3])
    found = capture(offload(any_model), IDS, [1, 3])
    for layer, rows in expected.items():
        assert torch.equal(found[layer].inputs, rows.inputs)
        assert torch.equal(found[layer].outputs, rows.outputs)


def test_unembedding_is_read(any_model: Any, offload: Any) -> None:
    before = find_unembedding(any_model)
    rows, hidden = before.weight.detach().clone(), torch.randn(3, 24)
    scores = before.logits(hidden)
    after = find_unembedding(offload(any_model))
    assert after.tied == before.tied
    assert torch.equal(after.weight, rows)
    assert torch.equal(after.norm_weight, before.norm_weight)
    assert torch.equal(after.logits(hidden), scores)


def test_applied_and_reverted_in_memory(tiny_model: Any, offload_to_memory: Any):
    plain = tiny_model("llama").bfloat16()
    change = random_intervention(plain)
    base = logits(plain)
    with change.applied(plain):
        expected = logits(plain)
    model = offload_to_memory(tiny_model("llama").bfloat16())
    again = random_intervention(model)
    assert again.digest == change.digest
    assert again.edits["model.layers.1.mlp.down_proj.weight"].base_sha256 == (
        change.edits["model.layers.1.mlp.down_proj.weight"].base_sha256
    )
    change.apply(model)
    assert torch.equal(logits(model), expected)
    with pytest.raises(InterventionError, match="carries this intervention already"):
        change.apply(model)
    change.revert(model)
    assert torch.equal(logits(model), base)


def test_a_disk_is_not_written_to(tiny_model: Any, tmp_path: Path) -> None:
    plain = tiny_model("llama")
    change = random_intervention(plain)
    base = logits(plain)
    with change.applied(plain):
        expected = logits(plain)
    model = on_a_disk(plain, tmp_path)
    before = files(tmp_path)
    for act in (change.apply, change.revert):
        with pytest.raises(
            InterventionError,
            match=r"offloaded to a disk.*cintervene apply.*AdapterIntervention",
        ):
            act(model)
    with applicable_form(change, model).applied(model):
        torch.testing.assert_close(logits(model), expected)
    assert torch.equal(logits(model), base)
    assert change.rebase(model).edits.keys() == change.edits.keys()
    assert files(tmp_path) == before


def test_shared_memory_is_seen(tiny_model: Any, offload_to_memory: Any) -> None:
    model = tiny_model("llama")
    first, last = (model.model.layers[i].mlp.down_proj for i in (0, 3))
    last.weight = first.weight
    with pytest.raises(ModelError, match=r"is shared with model\.layers\.3"):
        find_targets(offload_to_memory(model), [0])


def test_other_type_in_memory_is_no_place_to_change(tiny_model: Any) -> None:
    """Accelerate converts at every call; what is written there is rounded twice."""
    module = tiny_model("llama").model.layers[0].mlp.down_proj.bfloat16()
    wide = {"weight": module.weight.detach().float()}
    accelerate.hooks.attach_align_device_hook(module, CPU, True, wide)
    assert in_memory(module) is None
    assert parameter_value(module).dtype == torch.bfloat16
    assert torch.equal(parameter_value(module), wide["weight"].bfloat16())


def test_what_nothing_brings_in_is_refused(tiny_model: Any) -> None:
    model = tiny_model("llama")
    change = random_intervention(model)
    model.model.layers[3].to("meta")
    with pytest.raises(InterventionError, match=r"layers\.3.*nothing brings in"):
        change.apply(model)
    with pytest.raises(ModelError, match="no hook of accelerate"):
        parameter_value(model.model.layers[3].mlp.down_proj)


def test_device_of_a_module(tiny_model: Any, tmp_path: Path) -> None:
    model = tiny_model("llama")
    assert device_of(model) == CPU
    assert device_of(torch.nn.ReLU()) == CPU
    packed = torch.nn.Module()
    packed.register_buffer("codes", torch.empty(3, device="meta"))
    assert device_of(packed) == torch.device("meta")
    assert device_of(on_a_disk(model, tmp_path)) == CPU


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("saved") / "base")


def load(saved: Path, **options: Any) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(saved, **options).eval()


def some_on_a_disk(saved: Path, folder: Path) -> Any:
    places: dict[str, Any] = dict.fromkeys(
        ["model.embed_tokens", "model.layers.0", "model.norm", "model.rotary_emb"],
        "cpu",
    )
    places |= {"model.layers.1": "disk", "lm_head": "cpu"}
    return load(saved, device_map=places, offload_folder=folder)


@pytest.mark.parametrize("method", ["pcr", "tsr"])
def test_defended_as_if_it_were_whole(saved: Path, tmp_path: Path, method: str) -> None:
    """Of a device map with a disk comes the same change, and the same adapter."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(saved)
    options: dict[str, Any] = {"forbid": ["bad"], "calibration": LITTLE}
    if method == "tsr":
        options = {
            "harmful": ["How to lie?", "How to rob?"] * 3,
            "steps": 2, "answers": 4, "borderline": 4,
        }  # fmt: skip
    found: list[Intervention] = [
        ci.defend(model, tokenizer, method=method, layers=[0, 1], **options)
        for model in (load(saved), some_on_a_disk(saved, tmp_path / "folder"))
    ]
    assert found[0].digest == found[1].digest
    for name, edit in found[0].edits.items():
        assert found[1].edits[name].base_sha256 == edit.base_sha256
    # Of an untrained model nothing is expected.
    beyond = {"beyond_limits": True}
    export.lora(found[1], tmp_path / "adapter", **beyond)
    changed = export.checkpoint(found[1], saved, tmp_path / "changed", **beyond)
    assert changed.path.is_dir()
