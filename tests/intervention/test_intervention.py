# SPDX-License-Identifier: Apache-2.0
"""Interventions apply to their base only, revert to the bit, and survive the disk."""

from __future__ import annotations

import copy
import gc
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.interventions import random_intervention, random_update

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from cintervene.activations.layer_stream import LayerStream
from cintervene.errors import ArgumentError, InterventionError
from cintervene.intervention import application
from cintervene.intervention import edit as edit_module
from cintervene.intervention import file as intervention_file
from cintervene.intervention.intervention import Intervention
from cintervene.models import find_decoder, find_targets, rounded_change, weights
from cintervene.models.weights import as_floats, rounded_outputs

DTYPES = [torch.bfloat16, torch.float16, torch.float32, torch.float64]


def bits(model: Any) -> dict[str, bytes]:
    return {
        name: value.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        for name, value in model.state_dict().items()
    }


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_apply_and_revert(tiny_model: Any, name: str, dtype: Any) -> None:
    model = tiny_model(name).to(dtype)
    before = bits(model)
    change = random_intervention(model)
    assert bits(model) == before
    weights = {t.name: t.weight.detach().clone() for t in find_targets(model, [1, 3])}
    applied = change.apply(model)
    assert applied.changed == list(weights)
    assert applied.unchanged == []
    for target in find_targets(model, [1, 3]):
        delta = torch.tensor(change.updates[target.name].matrix(), dtype=torch.float64)
        wide = weights[target.name].double()
        expected = wide + (delta.T if target.transposed else delta)
        torch.testing.assert_close(target.weight.detach(), expected.to(dtype))
    after = bits(model)
    assert {key for key in before if before[key] != after[key]} == set(weights)
    change.revert(model)
    assert bits(model) == before


def test_every_architecture_runs_changed(any_model: Any, matrix: Any) -> None:
    """Applying agrees with what the layer stream foresees."""
    ids = [[5, 9, 3, 7, 11, 2, 8]]
    change = random_intervention(any_model, [1], matrix=matrix)
    target = find_targets(any_model, [1], matrix=matrix)[0]
    stream = LayerStream(
        find_decoder(any_model), ids, 1, wanted=[slice(None)], matrix=matrix
    )
    stream.advance(1, change.updates[target.name])
    foreseen = stream.run(3).inputs
    with change.applied(any_model) as model:
        stream = LayerStream(
            find_decoder(model), ids, 3, wanted=[slice(None)], matrix=matrix
        )
        found = stream.run(3).inputs
    torch.testing.assert_close(found, foreseen, rtol=1e-4, atol=1e-5)


def test_context_manager_reverts_after_an_error(tiny_model: Any) -> None:
    model = tiny_model("llama")
    before = bits(model)
    change = random_intervention(model)
    seen = []

    def interrupted() -> None:
        with change.applied(model):
            seen.append(bits(model))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert seen[0] != before
    assert bits(model) == before


def test_twice_is_refused(tiny_model: Any) -> None:
    model = tiny_model("llama")
    change = random_intervention(model)
    change.apply(model)
    after = bits(model)
    with pytest.raises(
        InterventionError, match=r"down_proj\.weight carries this .* already"
    ):
        change.apply(model)
    assert bits(model) == after


def test_another_base_is_refused_and_nothing_changes(tiny_model: Any) -> None:
    model = tiny_model("llama")
    change = random_intervention(model)
    with torch.no_grad():
        model.model.layers[3].mlp.down_proj.weight[0, 0] += 1
    before = bits(model)
    with pytest.raises(
        InterventionError, match=r"layers\.3\.mlp\.down_proj\.weight is not"
    ):
        change.apply(model)
    assert bits(model) == before


def test_another_model_is_refused(tiny_model: Any) -> None:
    change = random_intervention(tiny_model("llama"))
    with pytest.raises(InterventionError, match="GPT2LMHeadModel has no parameter"):
        change.apply(tiny_model("gpt2"))
    with pytest.raises(InterventionError, match=r"got \(24, 48\) of float32, expected"):
        change.apply(tiny_model("llama", intermediate_size=48))


def test_failure_halfway_changes_nothing(
    tiny_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model("llama")
    change = random_intervention(model)
    before, calls = bits(model), []
    real = edit_module.add_update

    def interrupted(*args: Any) -> None:
        calls.append(args)
        real(*args)
        if len(calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(edit_module, "add_update", interrupted)
    with pytest.raises(KeyboardInterrupt):
        change.apply(model)
    assert len(calls) == 2
    assert bits(model) == before


def test_nothing_was_changed(tiny_model: Any) -> None:
    model = tiny_model("llama").bfloat16()
    before = bits(model)
    small, none = random_intervention(model, size=1e-6), random_intervention(model)
    for change in (small, none.scale(0.0)):
        with pytest.raises(InterventionError, match=r"nothing was changed.*bfloat16"):
            change.apply(model)
        with pytest.raises(InterventionError, match=r"changes nothing|is not recorded"):
            change.revert(model)
    assert bits(model) == before


def test_some_weights_unchanged(tiny_model: Any) -> None:
    model = tiny_model("llama").bfloat16()
    before = bits(model)
    first, second = find_targets(model, [0, 2])
    change = Intervention.of(
        model, [(first, random_update(first)), (second, random_update(second, 1e-6))]
    )
    applied = change.apply(model)
    assert applied.changed == [first.name]
    assert applied.unchanged == [second.name]
    change.revert(model)
    assert bits(model) == before


def test_same_checkpoint_in_a_wider_type(tiny_model: Any) -> None:
    """Made for bf16, applied to the same weights as float32, and vice versa."""
    narrow = tiny_model("llama").bfloat16()
    wide = copy.deepcopy(narrow).float()
    random_intervention(narrow).apply(copy.deepcopy(wide))
    change = random_intervention(wide)
    change.apply(narrow)
    assert narrow.dtype == torch.bfloat16
    with pytest.raises(InterventionError, match="is not the weight"):
        random_intervention(narrow).apply(tiny_model("llama"))


def test_revert_without_apply(tiny_model: Any) -> None:
    model = tiny_model("llama")
    before = bits(model)
    with pytest.raises(InterventionError, match="does not carry this intervention"):
        random_intervention(model).revert(model)
    assert bits(model) == before


@pytest.mark.parametrize("dtype", DTYPES)
def test_revert_of_a_copy(tiny_model: Any, dtype: Any, tmp_path: Path) -> None:
    """A changed checkpoint that was stored and loaded again is taken back."""
    model = tiny_model("gpt2").to(dtype)
    before = bits(model)
    change = random_intervention(model)
    change.save(tmp_path / "change.safetensors")
    change.apply(model)
    again = copy.deepcopy(model)
    Intervention.load(tmp_path / "change.safetensors").revert(again)
    assert bits(again) == before
    with pytest.raises(InterventionError, match="does not carry"):
        change.revert(again)


def test_revert_of_a_copy_loaded_wider(tiny_model: Any) -> None:
    model = tiny_model("llama").bfloat16()
    base = copy.deepcopy(model).float()
    change = random_intervention(model)
    change.apply(model)
    wide = copy.deepcopy(model).float()
    change.revert(wide)
    assert bits(wide) == bits(base)


def test_copies_cannot_be_reverted_without_the_bits(tiny_model: Any) -> None:
    model = tiny_model("llama")
    change = random_intervention(model, reversible=False)
    assert not change.is_reversible()
    before = bits(model)
    change.apply(model)
    with pytest.raises(InterventionError, match="is not recorded"):
        change.revert(copy.deepcopy(model))
    change.revert(model)
    assert bits(model) == before


def test_last_applied_is_first_reverted(tiny_model: Any) -> None:
    model = tiny_model("llama")
    before = bits(model)
    first = random_intervention(model, [1, 2])
    first.apply(model)
    between = bits(model)
    second = random_intervention(model, [2], seed=9)
    second.apply(model)
    with pytest.raises(InterventionError, match=r"layers\.2.*changed after this"):
        first.revert(model)
    second.revert(model)
    assert bits(model) == between
    first.revert(model)
    assert bits(model) == before


def test_scaled_ones_are_recognised(tiny_model: Any) -> None:
    model = tiny_model("llama")
    before = bits(model)
    change = random_intervention(model)
    change.scale(0.5).apply(model)
    with pytest.raises(InterventionError, match="is not the weight"):
        change.apply(model)
    change.scale(0.5).revert(model)
    assert bits(model) == before


def test_kept_weights_go_with_their_model(tiny_model: Any) -> None:
    # Models of other tests may be waiting to be collected.
    gc.collect()
    model = tiny_model("llama")
    random_intervention(model).apply(model)
    count = len(application._records)
    del model
    gc.collect()
    assert len(application._records) == count - 1


def test_scale_and_sum(tiny_model: Any) -> None:
    model = tiny_model("llama").double()
    a = random_intervention(model, [0, 1], options={"k": 1}, metrics={"m": 2})
    b = random_intervention(model, [1, 2], seed=5)
    both = a + b.scale(-0.5)
    assert list(both.edits) == [
        f"model.layers.{i}.mlp.down_proj.weight" for i in range(3)
    ]
    middle = "model.layers.1.mlp.down_proj.weight"
    expected = a.updates[middle].matrix() - 0.5 * b.updates[middle].matrix()
    np.testing.assert_allclose(both.updates[middle].matrix(), expected)
    assert both.metrics == {}
    assert both.options["sum_of"][0] == {"k": 1}
    both.apply(model)
    with pytest.raises(ArgumentError, match="factor: got nan"):
        a.scale(float("nan"))


def test_sum_over_different_bases(tiny_model: Any) -> None:
    model = tiny_model("llama")
    a = random_intervention(model)
    a.apply(model)
    b = random_intervention(model, seed=3)
    with pytest.raises(InterventionError, match="made for different weights"):
        a + b


def test_rebase(tiny_model: Any) -> None:
    wide = tiny_model("llama")
    change = random_intervention(wide)
    narrow = copy.deepcopy(wide).bfloat16()
    before = bits(narrow)
    with pytest.raises(InterventionError, match="is not the weight"):
        change.apply(narrow)
    rebased = change.rebase(narrow)
    rebased.apply(narrow)
    again = copy.deepcopy(narrow)
    rebased.revert(again)
    assert bits(again) == before


def test_shared_memory_is_changed_once(tiny_model: Any) -> None:
    model = tiny_model("llama")
    change = random_intervention(model)
    layers = model.model.layers
    layers[3].mlp.down_proj.weight = layers[1].mlp.down_proj.weight
    with pytest.raises(InterventionError, match="share their memory"):
        change.apply(model)


def test_tied_embeddings_are_left_alone(tiny_model: Any) -> None:
    model = tiny_model("llama")
    head = model.get_output_embeddings().weight
    change = random_intervention(model)
    change.apply(model)
    assert model.get_output_embeddings().weight is head
    assert model.get_input_embeddings().weight is head


def test_arguments(tiny_model: Any) -> None:
    model = tiny_model("llama")
    target = find_targets(model, [0])[0]
    update = random_update(target)
    with pytest.raises(ArgumentError, match="edits: got none"):
        Intervention.of(model, [])
    with pytest.raises(ArgumentError, match="got two for model"):
        Intervention.of(model, [(target, update), (target, update)])
    with pytest.raises(ArgumentError, match=r"got shape \(40, 24\)"):
        Intervention.of(model, [(target, update.T)])


def test_rounded_change(tiny_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("llama", "gpt2"):
        model = tiny_model(name).bfloat16()
        target = find_targets(model, [2])[0]
        update = random_update(target, 0.1)
        before = target.weight.detach().clone().float()
        change = rounded_change(target, update)
        assert change.shape == (target.d_out, target.d_in)
        monkeypatch.setattr(weights, "OUTPUTS", 7)
        inputs = np.random.default_rng(0).standard_normal((3, target.d_in))
        outputs = rounded_outputs(target, update, inputs)
        np.testing.assert_allclose(outputs, inputs @ as_floats(change).T, atol=1e-12)
        Intervention.of(model, [(target, update)]).apply(model)
        after = target.weight.detach().float()
        assert torch.equal(change.T if target.transposed else change, after - before)


def test_saved_and_loaded(tiny_model: Any, tmp_path: Path) -> None:
    model = tiny_model("llama").bfloat16()
    options = {"layers": [1, 3], "strength": np.float32(0.5), "curve": np.arange(3.0)}
    change = random_intervention(model, options=options, metrics={"kl": 0.01})
    path = tmp_path / "change.safetensors"
    change.save(path)
    again = Intervention.load(str(path))
    assert again.digest == change.digest
    assert again.options == {"layers": [1, 3], "strength": 0.5, "curve": [0, 1, 2]}
    assert again.metrics == {"kl": 0.01}
    assert again.model == change.model
    assert again.versions == change.versions
    assert "torch" in again.versions
    for name, edit in again.edits.items():
        mine = change.edits[name]
        assert edit.base_sha256 == mine.base_sha256
        assert edit.result_sha256 == mine.result_sha256
        assert edit.dtype == torch.bfloat16
        assert np.array_equal(edit.update.left, mine.update.left)
    again.apply(model)
    assert os.listdir(tmp_path) == ["change.safetensors"]
    change.save(tmp_path / "second.safetensors")
    assert (tmp_path / "second.safetensors").read_bytes() == path.read_bytes()


def test_what_json_cannot_hold(tiny_model: Any, tmp_path: Path) -> None:
    change = random_intervention(tiny_model("llama"), options={"f": object()})
    with pytest.raises(ArgumentError, match="options, metrics: cannot be stored"):
        change.save(tmp_path / "change.safetensors")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("position", [3, 60, 0.3, 0.9, -1])
def test_a_flipped_byte_is_noticed(
    tiny_model: Any, tmp_path: Path, position: float
) -> None:
    path = tmp_path / "change.safetensors"
    random_intervention(tiny_model("llama")).save(path)
    content = bytearray(path.read_bytes())
    index = int(position * len(content)) if isinstance(position, float) else position
    content[index] ^= 0x11
    path.write_bytes(content)
    with pytest.raises(InterventionError, match=r"change\.safetensors"):
        Intervention.load(path)


@pytest.mark.parametrize("content", [b"", b"garbage" * 9, None])
def test_files_that_are_something_else(
    tiny_model: Any, tmp_path: Path, content: Any
) -> None:
    path = tmp_path / "change.safetensors"
    random_intervention(tiny_model("llama")).save(path)
    path.write_bytes(path.read_bytes()[:-50] if content is None else content)
    with pytest.raises(InterventionError, match="damaged or something else"):
        Intervention.load(path)


def test_other_safetensors_and_versions(
    tiny_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.numpy import save_file

    path = tmp_path / "x.safetensors"
    save_file({"a": np.zeros(3)}, path)
    with pytest.raises(InterventionError, match="does not hold an intervention"):
        Intervention.load(path)
    monkeypatch.setattr(intervention_file, "VERSION", 2)
    random_intervention(tiny_model("llama")).save(path)
    monkeypatch.undo()
    with pytest.raises(InterventionError, match="format version 2, expected 1"):
        Intervention.load(path)
    with pytest.raises(FileNotFoundError):
        Intervention.load(tmp_path / "missing")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("intervention.safetensors", "give .*intervention.safetensors$"),
        ("adapter_config.json", "is an adapter for peft; give the intervention.safe"),
    ],
)
def test_directories_that_are_known(tmp_path: Path, name: str, told: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(InterventionError, match=told):
        Intervention.load(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(IsADirectoryError):
        Intervention.load(tmp_path)


def test_interrupted_save_keeps_the_old_file(
    tiny_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "change.safetensors"
    change = random_intervention(tiny_model("llama"))
    change.save(path)
    before = path.read_bytes()

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(intervention_file.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        change.scale(2.0).save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["change.safetensors"]


def test_saved_files_follow_the_umask(tiny_model: Any, tmp_path: Path) -> None:
    path = tmp_path / "change.safetensors"
    old = os.umask(0o027)
    try:
        random_intervention(tiny_model("llama")).save(path)
    finally:
        os.umask(old)
    assert path.stat().st_mode & 0o777 == 0o640


def test_summary(tiny_model: Any) -> None:
    model = tiny_model("llama").bfloat16()
    model.name_or_path = "tiny"
    change = random_intervention(model)
    lines = change.summary().splitlines()
    assert len(lines) == 4
    assert "tiny: 2 weights, rank up to 3" in lines[0]
    assert lines[2].split()[:6] == [
        "1", "model.layers.1.mlp.down_proj.weight", "24", "x", "40", "bfloat16",
    ]  # fmt: skip
    edit = change.edits["model.layers.1.mlp.down_proj.weight"]
    weight = find_targets(model, [1])[0].weight.detach().double()
    expected = np.linalg.norm(edit.update.matrix()) / float(weight.norm())
    assert edit.relative_norm == pytest.approx(expected, rel=1e-5)
    assert f"{expected:.2%}" in lines[2]


@pytest.mark.model
def test_smollm2_on_disk(smollm2: Any, tmp_path: Path) -> None:
    """The shipped checkpoint is taken back to the bit by the file beside it."""
    from cintervene.models import load

    model, tokenizer = smollm2
    before = bits(model)
    change = random_intervention(model, [28, 29], size=0.05)
    change.save(tmp_path / "change.safetensors")
    with change.applied(model):
        model.save_pretrained(tmp_path / "changed")
        tokenizer.save_pretrained(tmp_path / "changed")
    assert bits(model) == before
    changed, _ = load(tmp_path / "changed")
    assert bits(changed) != before
    Intervention.load(tmp_path / "change.safetensors").revert(changed)
    assert bits(changed) == before
    size = (tmp_path / "change.safetensors").stat().st_size
    assert size < 2 * 576 * 1536 * 2


def quantise(module: Any, packed: str) -> None:
    """Give a linear layer the weights that bitsandbytes or GPTQ would."""
    codes = (module.weight.detach() * 100).to(torch.int8)
    del module.weight
    if packed == "weight":
        module.weight = torch.nn.Parameter(codes, requires_grad=False)
    else:
        module.register_buffer(packed, codes)


@pytest.mark.parametrize("packed", ["weight", "qweight"])
def test_quantised_weights_are_refused(tiny_model: Any, packed: str) -> None:
    model = tiny_model("llama")
    change = random_intervention(model)
    quantise(model.model.layers[3].mlp.down_proj, packed)
    before = bits(model)
    with pytest.raises(
        InterventionError, match=r"layers\.3\..*quantised.*export\.lora"
    ):
        change.apply(model)
    assert bits(model) == before
