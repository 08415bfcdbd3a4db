# SPDX-License-Identifier: Apache-2.0
"""``--dtype``: what a model is loaded in, while its files keep their types."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from support.directories import contents
from support.saved_models import save_tiny_model, work_little

from cintervene import Intervention
from cintervene.cli import main
from cintervene.cli.arguments.parser import COMMANDS, build_parser

WIDE = ["--dtype", "float32"]


@pytest.mark.parametrize("command", sorted({*COMMANDS} - {"doctor"}))
def test_every_command_with_a_model_has_it(command: str, capsys: Any) -> None:
    with pytest.raises(SystemExit):
        build_parser(command).parse_args([command, "--help"])
    flag = "--model-dtype" if command == "export" else "--dtype"
    assert f"{flag} {{auto,float32,bfloat16,float16}}" in capsys.readouterr().out


def test_made_wide_and_written_as_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    work_little(monkeypatch)
    model, words = save_tiny_model(tmp_path / "model"), tmp_path / "words.txt"
    words.write_text("bomb\n", "utf-8")
    out = tmp_path / "made"
    given = ["--model", str(model), *WIDE]
    argv = ["defend", *given, "--forbid", str(words), "--out", str(out)]
    assert main([*argv, "--strength", "4", "--no-evaluate", "--beyond-limits"]) in (
        0,
        1,
    )
    change = Intervention.load(out / "intervention.safetensors")
    for edit in change.edits.values():
        assert [form.dtype for form in edit.forms] == [torch.float32, torch.bfloat16]
    assert "--dtype float32 --config" in (out / "config.toml").read_text("utf-8")
    given = ["--intervention", str(out / "intervention.safetensors")]
    argv = ["apply", "--model", str(model), *given, "--beyond-limits"]
    assert main([*argv, "--out", str(tmp_path / "changed")]) == 0
    argv = ["revert", "--model", str(tmp_path / "changed"), *given]
    assert main([*argv, "--out", str(tmp_path / "back")]) == 0
    assert contents(tmp_path / "back") == contents(model)
    argv = ["explain", "--model", str(model), "--dtype", "int8"]
    with pytest.raises(SystemExit):
        main(argv)
    capsys.readouterr()
