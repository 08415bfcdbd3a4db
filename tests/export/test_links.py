# SPDX-License-Identifier: Apache-2.0
"""Of a model only its own files are copied, and no write leads elsewhere."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from support.interventions import random_intervention

from cintervene import export
from cintervene.errors import ArgumentError, CinterveneError, ModelError
from cintervene.export.checkpoint.write import apply_to_directory, revert_directory
from cintervene.intervention.intervention import Intervention
from cintervene.models import loading
from cintervene.utils.files import write_atomically
from cintervene.utils.staging import StagedDirectory


@pytest.fixture
def model(tiny_model: Any, tmp_path: Path) -> Path:
    with loading.quiet():
        tiny_model("llama").save_pretrained(tmp_path / "m", max_shard_size="12kB")
    (tmp_path / "secret").write_text("x", "utf-8")
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "secret").write_text("x", "utf-8")
    return tmp_path / "m"


@pytest.fixture
def change(tiny_model: Any) -> Intervention:
    return random_intervention(tiny_model("llama"))


def names(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def test_links_inside_are_copied_by_content(
    model: Path, change: Intervention, tmp_path: Path
) -> None:
    (model / "sub").mkdir()
    (model / "sub" / "a.txt").write_text("a", "utf-8")
    (model / "b.txt").symlink_to("sub/a.txt")
    (model / "again").symlink_to("sub")
    export.checkpoint(change, model, tmp_path / "out")
    for name in ("b.txt", "again/a.txt", "sub/a.txt"):
        assert (tmp_path / "out" / name).read_text("utf-8") == "a"
    assert not any(path.is_symlink() for path in (tmp_path / "out").rglob("*"))


LINKS: dict[str, Callable[[Path], None]] = {
    "file outside": lambda m: (m / "x.txt").symlink_to("../secret"),
    "directory outside": lambda m: (m / "x").symlink_to("../others"),
    "absolute": lambda m: (m / "x.txt").symlink_to(m.parent / "secret"),
    "through a link": lambda m: (
        (m / "x").symlink_to("y"), (m / "y").symlink_to("../secret"))[0],
    "nowhere": lambda m: (m / "x.txt").symlink_to("nowhere"),
    "itself": lambda m: (m / "x.txt").symlink_to("x.txt"),
    "circle": lambda m: (m / "x").symlink_to("."),
    "circle above": lambda m: ((m / "s").mkdir(), (m / "s" / "x").symlink_to(".."))[1],
    "pipe": lambda m: os.mkfifo(m / "x.txt"),
    "device": lambda m: (m / "x.txt").symlink_to("/dev/zero"),
    "blobs that are no cache's": lambda m: (
        (m.parent / "blobs").mkdir(), (m.parent / "blobs" / "1").touch(),
        (m / "x.txt").symlink_to("../blobs/1"))[2],
}  # fmt: skip


@pytest.mark.parametrize("kind", LINKS)
def test_what_is_not_the_models_is_refused(
    model: Path, change: Intervention, tmp_path: Path, kind: str
) -> None:
    LINKS[kind](model)
    with pytest.raises(ModelError, match=r"/m/(s/)?[xy]"):
        export.checkpoint(change, model, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


def test_holes_are_refused(model: Path, change: Intervention, tmp_path: Path) -> None:
    with (model / "x.json").open("wb") as stream:
        stream.truncate(1 << 33)
    with pytest.raises((ModelError, OSError), match=r"holes|space"):
        export.checkpoint(change, model, tmp_path / "out")


def test_in_place_leaves_what_links_lead_to(model: Path, change: Intervention) -> None:
    blobs, snapshot = model.parent / "blobs", model.parent / "snapshots" / "1"
    model.rename(blobs)
    snapshot.mkdir(parents=True)
    for path in blobs.iterdir():
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
    before = {path.name: path.read_bytes() for path in blobs.iterdir()}
    apply_to_directory(change, snapshot, snapshot)
    assert {path.name: path.read_bytes() for path in blobs.iterdir()} == before
    revert_directory(change, snapshot, snapshot)
    assert {path.name: path.read_bytes() for path in snapshot.iterdir()} == before


def test_nothing_is_written_through_links_to_directories(
    model: Path, change: Intervention, tmp_path: Path
) -> None:
    (model / "sub").mkdir()
    (model / "sub" / "secret").write_text("new", "utf-8")
    target = tmp_path / "target"
    target.mkdir()
    (target / "sub").symlink_to(tmp_path / "others")
    with pytest.raises(ArgumentError, match="is a link"):
        apply_to_directory(change, model, target)
    assert (tmp_path / "others" / "secret").read_text("utf-8") == "x"
    assert names(target) == ["sub"]


def test_other_weights_are_not_written_beside(
    model: Path, change: Intervention, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    target.mkdir()
    shutil.copy(next(model.glob("*1-of*.safetensors")), target / "model.safetensors")
    with pytest.raises(ArgumentError, match=r"holds model\.safetensors"):
        apply_to_directory(change, model, target)


def test_a_directory_that_is_changed_is_refused(
    model: Path, change: Intervention
) -> None:
    hidden = model / ".0123abcd.unfinished"
    (hidden / "old").mkdir(parents=True)
    (model / "model.safetensors.index.json").rename(
        hidden / "old" / "model.safetensors.index.json"
    )
    (hidden / "moves.json").write_text("{}", "utf-8")
    with pytest.raises(ModelError, match="is being changed"):
        loading.load(model)
    with pytest.raises(ModelError, match="is being changed"):
        export.checkpoint(change, model, model.parent / "out")
    apply_to_directory(change, model, model)
    assert (model / "model.safetensors.index.json").is_file()
    assert not hidden.exists()


@pytest.mark.parametrize("moves", ['{"../secret": [1]}', "[", "[]", '{"/x": []}'])
def test_lists_of_others_move_nothing(
    model: Path, change: Intervention, moves: str
) -> None:
    hidden = model / ".0123abcd.unfinished"
    hidden.mkdir()
    (hidden / "moves.json").write_text(moves, "utf-8")
    with pytest.raises(CinterveneError):
        apply_to_directory(change, model, model)
    assert (model.parent / "secret").read_text("utf-8") == "x"


@pytest.mark.parametrize("inside", [True, False])
def test_out_may_be_a_link(tmp_path: Path, inside: bool) -> None:
    real = (tmp_path / "d") if inside else (tmp_path / "elsewhere" / "d")
    real.mkdir(parents=True)
    (tmp_path / "out").symlink_to(real)
    with StagedDirectory(tmp_path / "out") as stage:
        (stage.path / "x").touch()
        stage.commit()
    assert (tmp_path / "out").is_symlink()
    assert names(real) == ["x"]


def test_files_keep_links_and_rights(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_text("old", "utf-8")
    real.chmod(0o600)
    link.symlink_to("real")
    write_atomically(link, b"new")
    assert link.is_symlink()
    assert real.read_bytes() == b"new"
    assert real.stat().st_mode & 0o777 == 0o600
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ArgumentError, match="is no file"):
        write_atomically(tmp_path / "pipe", b"")
    link.unlink()
    link.symlink_to("link")
    with pytest.raises(OSError, match="symbolic links"):
        write_atomically(link, b"")
    assert sorted(os.listdir(tmp_path)) == ["link", "pipe", "real"]
