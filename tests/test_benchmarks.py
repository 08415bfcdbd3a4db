# SPDX-License-Identifier: Apache-2.0
"""Benchmarks and notebooks name what there is; what they measure is not run here."""

from __future__ import annotations

import ast
import json
import sys
from importlib import import_module
from inspect import signature
from pathlib import Path
from runpy import run_path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

ROOT = Path(__file__).parent.parent
BENCHMARKS = sorted((ROOT / "benchmarks").glob("*.py"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def source(path: Path) -> str:
    """The code of a script or of all cells of a notebook."""
    text = path.read_text("utf-8")
    if path.suffix == ".py":
        return text
    cells = json.loads(text)["cells"]
    return "\n".join(
        "".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"
    )


def imported(module: str, name: str) -> Any:
    """What `from module import name` gives; an ImportError where there is none."""
    found = import_module(module)
    if hasattr(found, name):
        return getattr(found, name)
    return import_module(f"{module}.{name}")


def imports(tree: ast.AST) -> dict[str, Any]:
    """What a script calls the parts of the package that it imports."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for one in node.names:
                if one.name.partition(".")[0] == "cintervene":
                    found[one.asname or one.name] = import_module(one.name)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            if node.module.partition(".")[0] != "cintervene":
                continue
            for one in node.names:
                found[one.asname or one.name] = imported(node.module, one.name)
    return found


@pytest.mark.parametrize("path", [*BENCHMARKS, *NOTEBOOKS], ids=lambda path: path.name)
def test_names_exist(path: Path) -> None:
    tree = ast.parse(source(path))
    named = imports(tree)
    missing = [
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and isinstance(named.get(node.value.id), ModuleType)
        and not hasattr(named[node.value.id], node.attr)
    ]
    assert missing == []


def resolved(node: ast.expr, named: dict[str, Any]) -> Any:
    """What a dotted name of the package stands for; None for anything else."""
    if isinstance(node, ast.Name):
        return named.get(node.id)
    if isinstance(node, ast.Attribute):
        return getattr(resolved(node.value, named), node.attr, None)
    return None


@pytest.mark.parametrize("path", [*BENCHMARKS, *NOTEBOOKS], ids=lambda path: path.name)
def test_arguments_exist(path: Path) -> None:
    tree = ast.parse(source(path))
    named = imports(tree)
    wrong = []
    for node in ast.walk(tree):
        function = resolved(node.func, named) if isinstance(node, ast.Call) else None
        if not callable(function):
            continue
        given = [a for a in node.args if not isinstance(a, ast.Starred)]
        keywords = {one.arg: None for one in node.keywords if one.arg is not None}
        try:
            signature(function).bind_partial(*given, **keywords)
        except ValueError:
            # Functions of the core do not tell what they take.
            continue
        except TypeError as error:
            wrong.append(f"{ast.unparse(node.func)}: {error}")
    assert wrong == []


@pytest.mark.model
@pytest.mark.usefixtures("smollm2")
def test_what_is_for_a_gpu_runs_without(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its time on a GPU is short: each step ends well on a tiny model here."""
    script = ROOT / "benchmarks" / "device_8b.py"
    monkeypatch.setattr(sys, "argv", [str(script), "--tiny", "--device", "cpu"])
    monkeypatch.syspath_prepend(script.parent)
    run_path(str(script), run_name="__main__")
    lines = list(map(json.loads, capsys.readouterr().out.splitlines()))
    assert [line["step"] for line in lines] == [
        "model", "algebra", "pcr", "pcr matrices", "guard", "apply", "gate", "tsr",
    ]  # fmt: skip
    assert [line for line in lines if "error" in line] == []
