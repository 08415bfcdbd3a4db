# SPDX-License-Identifier: Apache-2.0
"""The examples run, one for each method and the guard."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from support.saved_models import save_tiny_model

from cintervene.methods.registry import all_methods

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose answers are noise."""
    return save_tiny_model(
        tmp_path_factory.mktemp("models") / "tiny", num_hidden_layers=4
    )


def run(name: str, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [name, "--model", model])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


def test_there_is_one_for_each_method() -> None:
    names = {path.stem for path in EXAMPLES.glob("*.py")}
    assert names == {*all_methods(), "guard"}


@pytest.mark.parametrize("name", ["pcr.py", "tsr.py", "arr.py", "gate.py", "guard.py"])
def test_it_runs(
    name: str, tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    run(name, str(tiny), monkeypatch)
    assert capsys.readouterr().out


@pytest.mark.model
@pytest.mark.usefixtures("smollm2")
def test_guard_on_smollm2(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    run("guard.py", "smollm2", monkeypatch)
    lines = capsys.readouterr().out.splitlines()
    without = [line for line in lines if "without:" in line]
    guarded = [line for line in lines if "guarded:" in line]
    assert '"bomb"' in without[0]
    assert '"bomb"' not in guarded[0]
    assert "Paris" in guarded[1]
