# SPDX-License-Identifier: Apache-2.0
"""Ranks that fail, end or stop in the middle: all end alike, and nothing is half."""

from __future__ import annotations

import ast
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from support.launches import ENVIRONMENT

import cintervene

METHODS = ("tsr", "arr", "gate")
# What gives each rank's results to all of them.
MEETINGS = ("deal", "deal_in_rounds", "exchange", "of_one")
PACKAGE = Path(cintervene.__file__).parent


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What came of the runs of `support.rank_failures`, by their names."""
    place = tmp_path_factory.mktemp("r")
    done = subprocess.run(
        [sys.executable, "-m", "support.rank_failures", str(place)],
        capture_output=True, text=True, check=False,
        env={**ENVIRONMENT, "CINTERVENE_CACHE": str(place / "cache")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(json.loads(line) for line in done.stdout.splitlines())


def last_lines(found: dict[str, Any]) -> list[str]:
    """What each rank said at the end."""
    return [(text.splitlines() or [""])[-1] for text in found["said"]]


@pytest.mark.parametrize("at", range(3), ids=METHODS)
def test_killed_in_the_middle_of_a_descent(runs: dict[str, Any], at: int) -> None:
    method = METHODS[at]
    killed = runs[f"killed {method}"]
    gone = 0 if method == "arr" else 1
    for rank, code in enumerate(killed["codes"]):
        assert code == (-signal.SIGKILL if rank == gone else 3)
        told = f"did not answer rank {rank}" in last_lines(killed)[rank]
        assert told == (rank != gone)
    assert killed["files"] is None
    again = runs[f"{method} again"]
    assert again["codes"] == [0, 0]
    assert again["digest"] == runs["alone"]["printed"][0].splitlines()[at]
    # Whoever writes next to the same place removes what the killed one left.
    assert again["hidden"] == []


@pytest.mark.parametrize("method", METHODS)
def test_stopped_in_the_middle_of_a_descent(runs: dict[str, Any], method: str) -> None:
    stopped = runs[f"stopped {method}"]
    gone = 0 if method == "arr" else 1
    assert stopped["codes"][gone] == -signal.SIGSTOP
    assert stopped["codes"][1 - gone] == 3
    assert "timed out waiting" in last_lines(stopped)[1 - gone]
    assert stopped["files"] is None


def test_ended_while_ranks_come_together(runs: dict[str, Any]) -> None:
    ended = runs["ended early"]
    assert ended["codes"] == [3, -signal.SIGKILL]
    assert last_lines(ended)[0].startswith("cintervene: ranks: do not come together")
    assert ended["files"] is None


def test_a_machine_that_lacks_something_says_so(runs: dict[str, Any]) -> None:
    lacking = runs["lacks something"]
    assert lacking["codes"] == [3, 3]
    first, second = last_lines(lacking)
    assert first.startswith("cintervene: ranks: do not come together")
    assert second == "cintervene: pip install cintervene.cli.commands.defend"


def test_a_study_is_kept_by_one_machine(runs: dict[str, Any]) -> None:
    found = runs["elsewhere"]
    assert found["codes"] == [0, 0], found["said"]
    assert {"report.md", "gate.safetensors"} <= set(found["files"])


def test_an_error_is_told_once_and_ends_all_alike(runs: dict[str, Any]) -> None:
    failed = {name: one for name, one in runs.items() if name.endswith(" failed")}
    assert len(failed) > 10
    for name, found in failed.items():
        assert found["codes"] == [3, 3], name
        assert last_lines(found)[0].startswith("cintervene: --model: got one of clay")
        assert found["said"][0].count("cintervene:") == 1, name
        assert found["said"][1] == "", name
        # Of studies and sweeps what was done before, if that is anything.
        assert found["files"] in (None, [], ["journal.jsonl"], ["sweep.jsonl"]), name


def test_no_rank_waits_for_one_that_failed_wherever_they_meet(
    runs: dict[str, Any],
) -> None:
    places = runs["places"]
    # All kinds of work were done in one go, and gave the same after all errors.
    assert places["codes"] == [0, 0], places["said"]
    assert places["printed"][0] == places["printed"][1]
    said = [text for one in runs.values() for text in (*one["said"], *one["printed"])]
    failed = set(re.findall(r"got one of clay in ([\w.:<>]+),", "\n".join(said)))
    # A new place is to be reached by one of the kinds of work there, or by a command.
    assert failed == set(meeting_places())


def meeting_places() -> Iterator[str]:
    """Modules and functions of the package in which ranks meet."""
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        if module != "cintervene.utils.ranks":
            tree = ast.parse(path.read_text("utf-8"))
            yield from (f"{module}:{name}" for name in _meeting(tree, ""))


def _meeting(node: ast.AST, name: str) -> Iterator[str]:
    """The qualified names of functions that call one of the meetings."""
    for child in ast.iter_child_nodes(node):
        inner = name
        if isinstance(child, ast.FunctionDef):
            within = f"{name}.<locals>." if isinstance(node, ast.FunctionDef) else ""
            outside = f"{name}." if isinstance(node, ast.ClassDef) else within
            inner = f"{outside}{child.name}"
        elif isinstance(child, ast.ClassDef):
            inner = child.name
        elif isinstance(child, ast.Call) and _name(child.func) in MEETINGS:
            yield name
        yield from _meeting(child, inner)


def _name(called: ast.expr) -> str | None:
    return called.id if isinstance(called, ast.Name) else None
