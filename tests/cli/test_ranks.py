# SPDX-License-Identifier: Apache-2.0
"""Commands in several processes: the same results, and ends that leave nothing half."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from support.launches import ENVIRONMENT
from support.saved_models import save_tiny_model

WORLDS = ("one", "two", "three", "four")
SIZES = {
    "starting": 1, "later": 1, "contrast-words": 4, "text-words": 4, "texts": 2,
    "prompts": 12, "contrast-prompts": 4, "tune-prompts": 4, "tune-words": 2,
    "answer-tokens": 8, "sentence-tokens": 8,
}  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What came of the runs of `support.rank_runs`, by their names."""
    done = subprocess.run(
        [sys.executable, "-m", "support.rank_runs", str(tmp_path_factory.mktemp("r"))],
        capture_output=True, text=True, env=ENVIRONMENT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(json.loads(line) for line in done.stdout.splitlines())


def test_a_change_does_not_depend_on_how_many_share_the_work(
    runs: dict[str, Any],
) -> None:
    for world, name in enumerate(WORLDS, start=1):
        found, others = runs[name], [False] * (world - 1)
        # The goal is not reached: a launcher is not told of it as of a failure.
        assert found["codes"] == ([1] if world == 1 else [0] * world)
        assert found["digest"] == runs["one"]["digest"]
        assert "intervention.safetensors" in found["files"]
        assert found["hidden"] == []
        assert [bool(text) for text in found["printed"]] == [True, *others]
        assert [bool(text) for text in found["said"]] == [True, *others]


def test_whole_matrices_do_not_either(runs: dict[str, Any]) -> None:
    assert runs["three, layers"]["digest"] == runs["one, layers"]["digest"]
    assert runs["three, layers"]["digest"] != runs["one"]["digest"]


def test_descents_do_not_either(runs: dict[str, Any]) -> None:
    alone = runs["descents of 1"]["descents"][0]
    for world in range(1, 5):
        found = runs[f"descents of {world}"]
        assert found["codes"] == [0] * world, found["said"]
        for own in found["descents"]:
            # The digest, and what each step measured.
            assert [(n, d, s) for n, d, _, s in own] == [
                (n, d, s) for n, d, _, s in alone
            ]
    assert len({digest for _, digest, _, _ in alone}) == 3


def test_each_rank_of_a_descent_does_a_part(runs: dict[str, Any]) -> None:
    (alone,) = runs["descents of 1"]["descents"]
    two = runs["descents of 2"]["descents"]
    for at, (name, _, whole, _) in enumerate(alone):
        most = max(own[at][2] for own in two)
        assert most < 0.8 * whole, name


def test_an_error_in_a_descent_ends_all(runs: dict[str, Any]) -> None:
    failed = runs["failed descent"]
    assert failed["codes"] == [99, 99]
    assert all("got one of clay" in said for said in failed["said"])
    assert "On rank 1:" in failed["said"][0]
    command = runs["command of a descent"]
    assert command["codes"] == [0, 0], command["said"]
    assert "intervention.safetensors" in command["files"]
    assert command["hidden"] == []
    assert command["printed"][1] == ""


def test_measurements_do_not_either(runs: dict[str, Any]) -> None:
    assert runs["two"]["measured"] == runs["one"]["measured"]


def test_sweeps_do_not_either(runs: dict[str, Any]) -> None:
    killed, found = runs["killed sweep"], runs["sweep of three"]
    assert killed["codes"] == [-signal.SIGKILL, 3]
    # One of the settings, and none of the tables.
    assert len(killed["files"]) == 2
    assert killed["files"][0] == "sweep.jsonl"
    assert found["codes"] == [0, 0, 0]
    assert len(found["rows"]) == 4
    assert found["rows"] == runs["sweep"]["rows"]


def test_studies_do_not_either_and_go_on_in_another_number(
    runs: dict[str, Any],
) -> None:
    whole = runs["study"]["cases"]
    assert len(whole) > 12
    assert runs["study of three"]["codes"] == [0, 0, 0]
    assert runs["study of three"]["cases"] == whole
    killed = runs["killed study"]
    assert killed["codes"] == [3, -signal.SIGKILL]
    assert 0 < len(killed["cases"]) < len(whole)
    again = runs["killed again"]
    assert again["codes"] == [-signal.SIGKILL, 3, 3]
    assert again["cases"] == whole
    assert "report.md" not in again["files"]
    assert runs["resumed study"]["codes"] == [0]
    assert runs["resumed study"]["cases"] == whole
    assert "report.md" in runs["resumed study"]["files"]


def test_an_error_of_one_ends_all(runs: dict[str, Any]) -> None:
    failed = runs["failed"]
    assert failed["codes"] == [3, 3]
    assert failed["files"] is None
    assert failed["hidden"] == []
    lines = failed["said"][0].splitlines()
    assert lines[-1].startswith("cintervene: --model: got one of clay")
    assert failed["said"][1] == ""
    broken = runs["broken"]
    assert broken["codes"] == [70, 70]
    assert broken["files"] is None
    assert "ZeroDivisionError: a mistake" in broken["said"][0]
    assert "On rank 1:" in broken["said"][0]


def test_killed_processes_leave_all_or_nothing(runs: dict[str, Any]) -> None:
    early, first, late = (runs[f"killed {when}"] for when in ("early", "first", "late"))
    assert early["codes"] == [3, -signal.SIGKILL]
    assert "did not answer rank 0" in early["said"][0]
    assert early["files"] is None
    assert early["hidden"] == []
    assert first["codes"] == [-signal.SIGKILL, 3]
    assert first["files"] is None
    assert late["codes"] == [3, -signal.SIGKILL]
    assert "intervention.safetensors" in late["files"]
    again = runs["again"]
    assert again["codes"] == [0, 0]
    assert again["digest"] == runs["one"]["digest"]
    # Whoever writes next to the same place removes what the killed one left.
    assert again["hidden"] == []


def test_one_that_is_silent_is_given_up(runs: dict[str, Any]) -> None:
    stopped = runs["stopped"]
    assert stopped["codes"] == [3, -signal.SIGSTOP]
    assert stopped["files"] is None
    assert "rank_timeout" not in stopped["said"][0]
    assert "--rank-timeout" in stopped["said"][0]


def test_what_all_would_say_is_said_once(runs: dict[str, Any]) -> None:
    occupied = runs["occupied"]
    assert occupied["codes"] == [2, 2]
    assert "is not empty" in occupied["said"][0]
    assert occupied["said"][1] == ""


def test_other_commands_are_done_by_the_first(runs: dict[str, Any]) -> None:
    other = runs["other command"]
    assert other["codes"] == [0, 0]
    assert other["printed"][0] != ""
    assert other["printed"][1] == ""


def test_programs_share_work_where_they_ask_for_it(runs: dict[str, Any]) -> None:
    library = runs["library"]
    assert library["codes"] == [0, 0], library["said"]


def test_torchrun(tmp_path: Path) -> None:
    model, words, out = (tmp_path / name for name in ("model", "words.txt", "out"))
    save_tiny_model(model)
    words.write_text("bad\nworse\n", "utf-8")
    sizes = [
        text
        for name, number in SIZES.items()
        for text in (f"--calibration-{name}", str(number))
    ]
    # Unlike processes that are forked from one, these order sets each in its own way.
    done = subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2",
            "-m", "cintervene", "defend", "--model", str(model), "--forbid",
            str(words), *sizes, "--no-evaluate", "--beyond-limits", "--json",
            "--out", str(out),
        ],
        capture_output=True, text=True, env=ENVIRONMENT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["files"] == sorted(one.name for one in out.iterdir())
    assert not json.loads((out / "report.json").read_text("utf-8"))["measurement"]
