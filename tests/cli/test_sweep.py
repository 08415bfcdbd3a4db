# SPDX-License-Identifier: Apache-2.0
"""``cintervene sweep`` on a tiny model."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from support.little_defences import FEW
from support.saved_models import save_tiny_model

from cintervene.cli import main
from cintervene.evaluate import EvaluationSize

LITTLE = [
    text
    for kind, size in (("calibration", FEW), ("evaluation", EvaluationSize()))
    for one in fields(size)
    for text in (
        f"--{kind}-{one.name.replace('_', '-')}",
        str(min(getattr(size, one.name), 4)),
    )
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


def given(model: Path, place: Path, *options: str) -> list[str]:
    words = place / "mild.txt"
    words.write_text("bad\nworse\n", "utf-8")
    return [
        "sweep", "--model", str(model), "--forbid", str(words), "--layers", "0,1", "1",
        "--strength", "2,4", "--method", "pcr:hinge=off", *LITTLE,
        "--out", str(place / "out"), *options,
    ]  # fmt: skip


def test_sweep(model: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "out"
    assert main(given(model, tmp_path)) == 0
    printed = capsys.readouterr().out
    assert "mild" in printed
    assert "95%" in printed
    assert f"each with its intervention in {out}" in printed
    assert main(given(model, tmp_path, "--json")) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["command"], result["out"]) == ("sweep", str(out))
    assert [(one["layers"], one["strength"]) for one in result["rows"]] == [
        ("0,1", "2"), ("0,1", "4"), ("1", "2"), ("1", "4"),
    ]  # fmt: skip
    row = result["rows"][-1]
    changed = ["apply", "--model", str(model), "--intervention",
               str(out / row["name"] / "intervention.safetensors"),
               "--out", str(tmp_path / "changed"), "--beyond-limits"]  # fmt: skip
    assert main(changed) == 0
    assert (tmp_path / "changed" / "model.safetensors").is_file()


def test_other_words_are_refused_by_the_flag(
    model: Path, tmp_path: Path, capsys: Any
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "sweep.jsonl").write_text(
        '{"setting": "split", "value": "held_out"}\n', "utf-8"
    )
    assert main(given(model, tmp_path)) == 2
    said = capsys.readouterr().err
    assert "--out: " in said
    assert "holds settings with split held_out, got tune; give a new directory" in said


def test_a_directory_that_is_no_sweeps_is_refused_before_a_model_is_loaded(
    tmp_path: Path, capsys: Any
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").touch()
    assert main(given(tmp_path / "no model", tmp_path)) == 2
    said = capsys.readouterr().err
    assert "--out: " in said
    assert "holds notes.txt but no settings to go on with; give a new directory" in said


def test_nor_is_one_loaded_where_nothing_can_be_written(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    argv = given(tmp_path / "no model", tmp_path)
    # Who runs the tests may write everywhere.
    monkeypatch.setattr(Path, "mkdir", refuse)
    assert main(argv) == 3
    assert "permission denied" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--strength", "2,x"], "expected positive numbers such as 2,4,8"),
        (["--layers", "a"], "expected layer"),
        (["--method", "gate"], "--method: got 'gate', which forbids no words"),
    ],
)
def test_wrong_usage(
    model: Path, tmp_path: Path, options: list[str], message: str, capsys: Any
) -> None:
    try:
        code = main(given(model, tmp_path, *options))
    except SystemExit as end:
        code = int(str(end.code))
    assert code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_lists_of_one_name_are_refused(
    model: Path, tmp_path: Path, capsys: Any
) -> None:
    argv = given(model, tmp_path)
    (tmp_path / "other").mkdir()
    words = tmp_path / "other" / "mild.txt"
    words.write_text("bad\n", "utf-8")
    assert main([*argv, "--forbid", str(tmp_path / "mild.txt"), str(words)]) == 2
    assert "got two lists called mild" in capsys.readouterr().err
