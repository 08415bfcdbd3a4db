# SPDX-License-Identifier: Apache-2.0
"""Saved models are changed and taken back byte by byte."""

from __future__ import annotations

import json
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from safetensors import safe_open
from safetensors.torch import load_file, save_file

from cintervene.errors import InterventionError, ModelError
from cintervene.export.checkpoint.shards import SINGLE, Shards
from cintervene.export.checkpoint.write import apply_to_directory, revert_directory
from cintervene.intervention.intervention import Intervention
from cintervene.models import find_targets, loading
from cintervene.solvers.update import LowRankUpdate


def make(model: Any, layers: Any = (1, 3), matrix: Any = "down_proj") -> Intervention:
    source = np.random.default_rng(5)
    pairs = []
    for target in find_targets(model, layers, matrix=matrix):
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
def test_apply_and_revert(
    tmp_path: Path, tiny_model: Any, name: str, dtype: Any, matrix: Any
):
    model = tiny_model(name).to(dtype)
    source = save(model, tmp_path / "base")
    change = make(model, matrix=matrix)
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


def test_metadata_tied_weights_and_rights_are_kept(tmp_path: Path, tiny_model: Any):
    model = tiny_model("llama")
    source = save(model, tmp_path / "base")
    stored = load_file(source / "model.safetensors")
    assert "lm_head.weight" not in stored
    weights = source / "model.safetensors"
    save_file(stored, weights, {"format": "pt", "made by": "somebody"})
    weights.chmod(0o440)
    (source / "chat").mkdir()
    (source / "chat" / "template.jinja").write_text("hello", "utf-8")
    (source / "chat" / "old.bin").write_bytes(b"old weights")
    (source / "run.sh").touch(0o750)
    (source / ".cache").mkdir()
    target = tmp_path / "changed"
    target.mkdir()
    apply_to_directory(make(model), source, target)
    with safe_open(target / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt", "made by": "somebody"}
        assert set(file.keys()) == set(stored)
    for name, mode in (("model.safetensors", 0o440), ("run.sh", 0o750)):
        assert (target / name).stat().st_mode & 0o777 == mode
    assert (target / "chat" / "template.jinja").read_text("utf-8") == "hello"
    assert not (target / "chat" / "old.bin").exists()
    assert not (target / ".cache").exists()


def test_links_of_a_cache_are_followed(tmp_path: Path, tiny_model: Any):
    model = tiny_model("llama")
    source = save(model, tmp_path / "blobs")
    snapshot = tmp_path / "snapshots" / "0a1b"
    snapshot.mkdir(parents=True)
    for path in source.iterdir():
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
    before = files(source)
    target = tmp_path / "changed"
    target.mkdir()
    apply_to_directory(make(model), snapshot, target)
    assert files(source) == before
    assert files(target) != before
    assert not any(path.is_symlink() for path in target.iterdir())


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.PT", "model.ckpt"])
def test_pickles_are_refused(tmp_path: Path, tiny_model: Any, name: str):
    change = make(tiny_model("llama"))
    (tmp_path / name).touch()
    with pytest.raises(ModelError, match=rf"as {name}, a pickle, which runs code"):
        apply_to_directory(change, tmp_path, tmp_path)
    index = {"weight_map": {"a": name}}
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps(index), "utf-8")
    with pytest.raises(ModelError, match=f"names {name}, which is no safetensors file"):
        apply_to_directory(change, tmp_path, tmp_path)


def test_one_weight_at_a_time(tmp_path: Path, tiny_model: Any, monkeypatch: Any):
    model = tiny_model("llama")
    source = save(model, tmp_path / "base")
    change = make(model, layers=range(4))
    read = Shards.read
    names: list[str] = []
    alive: list[weakref.ref[Any]] = []

    def watched(shards: Shards, name: str) -> Any:
        held = [names[i] for i, ref in enumerate(alive) if ref() is not None]
        assert held == [], "weights read earlier are still in memory"
        tensor = read(shards, name)
        names.append(name)
        alive.append(weakref.ref(tensor))
        return tensor

    monkeypatch.setattr(Shards, "read", watched)
    apply_to_directory(change, source, source)
    assert len(set(names)) == 4


def test_quantised_weights_are_refused(tmp_path: Path, tiny_model: Any):
    model = tiny_model("llama")
    change = make(model)
    source = save(model, tmp_path / "base")
    stored = load_file(source / "model.safetensors")
    name = "model.layers.3.mlp.down_proj.weight"
    save_file(stored | {name: stored[name].to(torch.int8)}, source / SINGLE)
    with pytest.raises(InterventionError, match=r"of I8 .* quantised"):
        apply_to_directory(change, source, source)
    other = {k: v for k, v in stored.items() if k != name}
    save_file(other | {"a.qweight": stored[name]}, source / SINGLE)
    with pytest.raises(InterventionError, match=r"no plain tensor .* quantised"):
        apply_to_directory(change, source, source)


def test_what_is_lost_in_rounding_is_told(tmp_path: Path, tiny_model: Any):
    model = tiny_model("llama").bfloat16()
    source = save(model, tmp_path / "base")
    before = files(source)
    with pytest.raises(InterventionError, match="lost in the rounding"):
        apply_to_directory(make(model).scale(1e-9), source, source)
    assert files(source) == before


KILLS = """
import os, shutil, signal, sys
from pathlib import Path
from cintervene import Intervention
from cintervene.export.checkpoint.shards import Shards
from cintervene.export.checkpoint.write import apply_to_directory
from cintervene.utils.staging import StagedDirectory

base, out = Path(sys.argv[1]), Path(sys.argv[2])
change = Intervention.load(sys.argv[3])

def work(fatal):
    seen = 0
    def counted(function):
        def call(*args, **options):
            nonlocal seen
            for moment in ("before", "after"):
                seen += 1
                if seen == fatal:
                    os.kill(os.getpid(), signal.SIGKILL)
                if moment == "before":
                    result = function(*args, **options)
            return result
        return call
    shutil.copyfile = counted(shutil.copyfile)
    os.fsync = counted(os.fsync)
    Path.rename = counted(Path.rename)
    Shards.write = counted(Shards.write)
    with StagedDirectory(out) as stage:
        apply_to_directory(change, base, stage.path)
        stage.commit()

for fatal in range(1, 1000):
    child = os.fork()
    if not child:
        work(fatal)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    found = sorted(p.name for p in out.iterdir()) if out.exists() else ()
    print(fatal, status, *found)
    if status != 9:
        break
    shutil.rmtree(out, ignore_errors=True)
"""


def test_killed_at_any_point(tmp_path: Path, tiny_model: Any):
    model = tiny_model("llama")
    source = save(model, tmp_path / "base", max_shard_size="12kB")
    before = files(source)
    change, out = tmp_path / "change.safetensors", tmp_path / "out"
    make(model).save(change)
    argv = [sys.executable, "-c", KILLS, str(source), str(out), str(change)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    runs = [line.split() for line in done.stdout.splitlines()]
    names = sorted(before)
    assert runs[-1][1:] == ["0", *names]
    assert all(status == "9" for _, status, *_ in runs[:-1])
    listed = [found for _, _, *found in runs]
    # Absent until the one moment after which all is there.
    first = listed.index(names)
    assert first > 2 * len(names)
    assert listed == [[]] * first + [names] * (len(listed) - first)
    assert files(source) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "base", "change.safetensors", "out",
    ]  # fmt: skip
