# SPDX-License-Identifier: Apache-2.0
"""The menu after ``cintervene defend``: what it writes, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("tomli_w")

from support.little_defences import little_defence
from support.saved_models import save_tiny_model

from cintervene.cli import main
from cintervene.cli.commands import defend as command
from cintervene.cli.dialogue import reading, session
from cintervene.intervention.intervention import Intervention
from cintervene.methods.common.front import FrontPoint, kept_front, offer
from cintervene.methods.defend import defend
from cintervene.models import loading

FILES = {
    "config.toml", "intervention.safetensors", "layers.png", "report.html",
    "report.json", "report.md",
}  # fmt: skip
# Limits that any change of a random model keeps.
LENIENT = {"max_kl": 1e9, "max_benign_loss": 1e9, "min_effect": 1e-9}
Solved = tuple[Intervention, list[FrontPoint]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def solved(model: Path) -> Callable[..., Solved]:
    """Defences of the model, each made once."""

    @cache
    def solve(**parameters: Any) -> Solved:
        asked = little_defence("pcr, requests", layers=[1], **parameters)
        with kept_front() as front:
            return defend(*loading.load(model), **asked), front

    return solve


class Typist:
    """Types lines, or presses keys that raise something; fails when asked for more."""

    def __init__(self) -> None:
        self.lines: list[str | type[BaseException]] = []
        self.asked: list[str] = []

    def __call__(self, prompt: str) -> str:
        self.asked.append(prompt)
        line = self.lines.pop(0)
        if isinstance(line, str):
            return line
        raise line


@pytest.fixture
def typist(monkeypatch: Any) -> Typist:
    one = Typist()
    for module in (reading, session, command):
        monkeypatch.setattr(module, "at_terminal", lambda: True)
    monkeypatch.setattr(session, "unechoed", nullcontext)
    monkeypatch.setattr("builtins.input", one)
    short = partial(command.Sides, max_new_tokens=4)
    monkeypatch.setattr(command, "Sides", short)
    return one


@pytest.fixture
def run(
    model: Path, tmp_path: Path, typist: Typist, solved: Any, monkeypatch: Any
) -> Any:
    """Run ``defend`` into ``out``, where somebody types these lines."""

    def work(
        *lines: str | type[BaseException], flags: tuple[str, ...] = (), **found: Any
    ) -> int:
        intervention, front = solved(**{**LENIENT, **found})

        def found_before(*_: Any, **__: Any) -> Intervention:
            offer(front)
            return intervention

        typist.lines = list(lines)
        monkeypatch.setattr(command, "defend", found_before)
        (tmp_path / "requests.txt").write_text("How to lie?\nHow to rob?\n", "utf-8")
        code = main(
            [
                "defend", "--model", str(model), "--out", str(tmp_path / "out"),
                "--harmful", str(tmp_path / "requests.txt"), *flags,
            ]
        )  # fmt: skip
        assert typist.lines == []
        return code

    return work


def directories(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir() if path.is_dir())


def chosen(directory: Path) -> int:
    change = Intervention.load(directory / "intervention.safetensors")
    (at,) = [i for i, p in enumerate(change.metrics["sweep"]) if p["chosen"]]
    return at


def test_another_point_is_saved_beside(
    run: Any, tmp_path: Path, capsys: Any, solved: Any
) -> None:
    intervention, front = solved(**LENIENT)
    at = next(i for i, point in enumerate(front) if not point.chosen)
    assert run(str(at + 1), "s", "", "q") == 0
    assert directories(tmp_path) == ["out", f"out-{at + 1}"]
    other = tmp_path / f"out-{at + 1}"
    for place in (tmp_path / "out", other):
        assert {path.name for path in place.iterdir()} >= FILES
    own = Intervention.load(tmp_path / "out" / "intervention.safetensors")
    assert own.digest == intervention.digest
    saved = Intervention.load(other / "intervention.safetensors")
    assert saved.digest == front[at].make().digest
    assert chosen(other) == at
    assert saved.digest in (other / "report.json").read_text("utf-8")
    assert f"# The change beside this file is point {at + 1} of" in (
        other / "config.toml"
    ).read_text("utf-8")
    out, _ = capsys.readouterr()
    assert "effect against drift" in out
    assert f"* {at + 1:3d}" in out
    assert f"in {other}" in out


def test_points_are_tried_in_a_chat(run: Any, typist: Typist, capsys: Any) -> None:
    assert run("1", "t", "hello", "/quit", EOFError) == 0
    out, _ = capsys.readouterr()
    assert "before:\n" in out
    assert "after:\n" in out
    menu = "point 1> "
    assert typist.asked[1:] == [menu, "> ", "> ", menu]


@pytest.mark.parametrize("end", ["q", EOFError, KeyboardInterrupt])
def test_every_end_leaves_what_was_saved(run: Any, tmp_path: Path, end: Any) -> None:
    assert run("nonsense", "99", "9" * 5000, "-1", end) == 0
    assert directories(tmp_path) == ["out"]
    assert {path.name for path in (tmp_path / "out").iterdir()} >= FILES


def test_nothing_is_written_over(run: Any, tmp_path: Path, capsys: Any) -> None:
    before = {}

    class Looking(EOFError):
        """Ctrl-D at the question for a directory."""

        def __init__(self) -> None:
            for path in (tmp_path / "out").iterdir():
                before[path.name] = path.read_bytes()

    assert run("1", "s", Looking, "s", str(tmp_path / "out"), "q") == 0
    assert "out: " in capsys.readouterr().err
    assert directories(tmp_path) == ["out"]
    after = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert after == before
    assert before


def test_an_interrupted_save_leaves_nothing(
    run: Any, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    write = command.write_report

    def interrupted(directory: Path, *content: Any, **goals: Any) -> None:
        # Of "out" there is ".out-0123abcd.unfinished", whose digits are any.
        if directory.name.startswith(".out-1-"):
            raise KeyboardInterrupt
        write(directory, *content, **goals)

    monkeypatch.setattr(command, "write_report", interrupted)
    assert run("1", "s", "", "q") == 0
    assert "interrupted; nothing is left half written" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "requests.txt"]


def test_what_crossed_its_limits_is_asked_about(
    run: Any, tmp_path: Path, capsys: Any
) -> None:
    assert run("s", "n", "s", EOFError, "q", max_kl=1e-9) == 1
    assert directories(tmp_path) == []
    capsys.readouterr()
    assert run("s", "y", "", "q", max_kl=1e-9) == 1
    assert {path.name for path in (tmp_path / "out").iterdir()} >= FILES
    out, err = capsys.readouterr()
    assert "nothing was written" in err
    assert "--max-kl: got" in out
    assert "beyond limits" in out


def test_a_single_change_can_be_tried_and_saved(
    run: Any, tmp_path: Path, typist: Typist
) -> None:
    more = str(tmp_path / "more")
    assert run("t", "hello", EOFError, "s", more, "q", strength=4.0) == 0
    assert typist.asked[0] == "change> "
    assert directories(tmp_path) == ["more", "out"]


@pytest.mark.parametrize("flag", ["--no-menu", "--json"])
def test_scripts_are_not_asked(run: Any, typist: Typist, flag: str) -> None:
    assert run(flags=(flag,)) == 0
    assert typist.asked == []


def test_nobody_is_asked_without_a_terminal(
    run: Any, typist: Typist, monkeypatch: Any
) -> None:
    monkeypatch.setattr(command, "at_terminal", lambda: False)
    assert run() == 0
    assert typist.asked == []
