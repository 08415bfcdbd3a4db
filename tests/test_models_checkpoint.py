# SPDX-License-Identifier: Apache-2.0
"""Saved models are changed and taken back byte by byte."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file  # noqa: E402

from cintervene.errors import InterventionError, ModelError  # noqa: E402
from cintervene.models import Intervention, find_targets, loading  # noqa: E402
from cintervene.models.checkpoint import (  # noqa: E402
    apply_to_directory,
    revert_directory,
)
from cintervene.update import LowRankUpdate  # noqa: E402


def make(model: Any, layers: Any = (1, 3)) -> Intervention:
    source = np.random.default_rng(5)
    pairs = []
    for target in find_targets(model, layers):
        left = source.normal(size=(target.d_out, 2)) * 0.3
        right = source.normal(size=(2, target.d_in)) * 0.3
        pairs.append((target, LowRankUpdate(left, right)))
    return Intervention.of(model, pairs)


def save(model: Any, directory: Path, **options: Any) -> Path:
    with loading.quiet():
        model.save_pretrained(directory, **options)
    return directory


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_apply_and_revert(tmp_path: Path, tiny_model: Any, name: str, dtype: Any):
    model = tiny_model(name).to(dtype)
    source = save(model, tmp_path / "base")
    change = make(model)
    changed, back = tmp_path / "changed", tmp_path / "back"
    changed.mkdir()
    back.mkdir()
    applied = apply_to_directory(change, source, changed)
    assert applied.changed == list(change.edits)
    change.apply(model)
    stored = load_file(changed / "model.safetensors")
    for key, value in model.state_dict().items():
        if key in stored:
            assert torch.equal(stored[key], value)
    assert files(changed).keys() == files(source).keys()
    assert files(changed) != files(source)
    revert_directory(change, changed, back)
    assert files(back) == files(source)


def test_shards_and_in_place(tmp_path: Path, tiny_model: Any):
    model = tiny_model("llama")
    source = save(model, tmp_path / "base", max_shard_size="12kB")
    assert len(list(source.glob("*.safetensors"))) > 2
    before = files(source)
    change = make(model)
    apply_to_directory(change, source, source)
    after = files(source)
    differing = {name for name in before if before[name] != after[name]}
    assert 1 <= len(differing) <= 2
    assert [len(c) for c in before.values()] == [len(c) for c in after.values()]
    revert_directory(change, source, source)
    assert files(source) == before


def test_types_of_other_weights_are_kept(tmp_path: Path, tiny_model: Any):
    model = tiny_model("llama").bfloat16()
    source = save(model, tmp_path / "base")
    stored = load_file(source / "model.safetensors")
    stored = {k: v.float() if "norm" in k else v for k, v in stored.items()}
    save_file(stored, source / "model.safetensors", {"format": "pt"})
    target = tmp_path / "changed"
    target.mkdir()
    apply_to_directory(make(model), source, target)
    after = load_file(target / "model.safetensors")
    assert {k: v.dtype for k, v in after.items()} == {
        k: v.dtype for k, v in stored.items()
    }


def test_names_without_their_prefix(tmp_path: Path, tiny_model: Any):
    model = tiny_model("llama")
    source = save(model, tmp_path / "base")
    stored = load_file(source / "model.safetensors")
    renamed = {key.removeprefix("model."): value for key, value in stored.items()}
    save_file(renamed, source / "model.safetensors", {"format": "pt"})
    change = make(model)
    apply_to_directory(change, source, source)
    change.apply(model)
    after = load_file(source / "model.safetensors")
    name = "layers.3.mlp.down_proj.weight"
    assert torch.equal(after[name], model.get_parameter(f"model.{name}"))


def test_unchanged_weights_are_not_handed_on(tmp_path: Path, tiny_model: Any):
    model = tiny_model("llama")
    source = save(model, tmp_path / "base")
    (source / "pytorch_model.bin").write_bytes(b"old weights")
    (source / "original").mkdir()
    (source / "notes.txt").write_text("keep", "utf-8")
    target = tmp_path / "changed"
    target.mkdir()
    apply_to_directory(make(model), source, target)
    assert "pytorch_model.bin" not in files(target)
    assert not (target / "original").exists()
    assert (target / "notes.txt").read_text("utf-8") == "keep"


def test_wrong_base_writes_nothing(tmp_path: Path, tiny_model: Any):
    change = make(tiny_model("llama"))
    other = tiny_model("llama")
    with torch.no_grad():
        other.model.layers[3].mlp.down_proj.weight[0, 0] += 1
    source = save(other, tmp_path / "other")
    target = tmp_path / "changed"
    target.mkdir()
    with pytest.raises(InterventionError, match="is not the weight"):
        apply_to_directory(change, source, target)
    with pytest.raises(InterventionError, match="does not carry this intervention"):
        revert_directory(change, source, target)
    source = save(tiny_model("gpt2"), tmp_path / "gpt2")
    with pytest.raises(InterventionError, match=r"no plain tensor model\.layers"):
        apply_to_directory(change, source, target)
    assert files(target) == {}


def test_damage_is_named(tmp_path: Path, tiny_model: Any):
    model = tiny_model("llama")
    change = make(model)
    source = save(model, tmp_path / "base", max_shard_size="12kB")
    target = tmp_path / "changed"
    target.mkdir()
    shard = next(source.glob("*.safetensors"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-4])
    with pytest.raises(ModelError, match=rf"{shard.name} is damaged"):
        apply_to_directory(change, source, target)
    shard.unlink()
    with pytest.raises(ModelError, match=rf"{shard.name} is missing"):
        apply_to_directory(change, source, target)
    index = source / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": 3}), "utf-8")
    with pytest.raises(ModelError, match=r"index\.json is damaged"):
        apply_to_directory(change, source, target)
    index.unlink()
    with pytest.raises(ModelError, match="holds neither"):
        apply_to_directory(change, source, target)
    assert files(target) == {}
