# SPDX-License-Identifier: Apache-2.0
"""The chat and the menu at a real terminal: columns, Ctrl-C, Ctrl-D, typed choices."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("tomli_w")

from support.interventions import random_intervention
from support.little_defences import FEW_TOML
from support.saved_models import save_tiny_model
from support.terminals import Terminal, screen

from cintervene.cli.dialogue.wrapping import harmless
from cintervene.intervention.intervention import Intervention
from cintervene.models import loading
from cintervene.prompts.chat import generate, render

WIDTH, HEIGHT = 120, 12
# Tokens of an answer that are computed once more.
LOOKED_AT = 500
PROMPT = r"(?<!\d)> $"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models") / "tiny"
    return save_tiny_model(directory, max_position_embeddings=4096)


@pytest.fixture(scope="module")
def change(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made") / "intervention.safetensors"
    loaded, _ = loading.load(model)
    random_intervention(loaded, [0, 1]).save(path)
    return path


def test_a_chat_in_columns(model: Path, change: Path, tmp_path: Path) -> None:
    argv = ["-m", "cintervene", "chat", "--model", str(model)]
    argv += ["--intervention", str(change), "--max-new-tokens", "3000"]
    log = tmp_path / "stderr"
    with Terminal(argv, log, WIDTH, HEIGHT) as terminal:
        terminal.until(PROMPT)
        terminal.type("hello\n")
        terminal.until("before +│ after")
        terminal.until(r"│ \S")
        terminal.interrupt(PROMPT)
        # At the prompt it is no end either.
        terminal.interrupt(PROMPT)
        terminal.type("/strength 0.5\n")
        terminal.until(PROMPT)
        terminal.type("/help\n")
        assert "/strength X" in terminal.until(PROMPT)
        terminal.type("\x04")
        assert terminal.ends() == 0
    rows = screen(terminal.text, HEIGHT)
    answer = [row for row in rows if "│" in row]
    assert answer[0].split() == ["before", "│", "after"]
    assert {row.index("│") for row in answer} == {answer[0].index("│")}
    assert all(len(row) < WIDTH for row in answer)
    notes = log.read_text("utf-8")
    assert "answers end after" not in notes, "Ctrl-C did not stop it"
    said = "".join(row.split("│")[0] for row in answer[1:]).replace(" ", "")
    loaded, tokenizer = loading.load(model)
    (tokens,) = generate(loaded, tokenizer, [render(tokenizer, "hello")], LOOKED_AT)
    assert len(tokens) == LOOKED_AT, "it would have ended by itself"
    whole = re.sub(r"\s", "", harmless(tokenizer.decode(tokens).replace("\n", "")))
    length = min(len(said), len(whole))
    assert said[:length] == whole[:length] != ""
    assert "the model answers, before and after the change" in notes
    assert "Traceback" not in notes


def test_the_menu(model: Path, tmp_path: Path) -> None:
    (tmp_path / "requests.txt").write_text("How to lie?\nHow to rob?\n" * 3, "utf-8")
    (tmp_path / "few.toml").write_text(f"layers = [1]\n{FEW_TOML}", "utf-8")
    out = tmp_path / "out"
    argv: list[Any] = ["-m", "cintervene", "defend", "--model", model, "--out", out]
    argv += ["--config", tmp_path / "few.toml", "--harmful", tmp_path / "requests.txt"]
    argv += ["--max-kl=1e9", "--max-benign-loss=1e9", "--min-effect=1e-9"]
    with Terminal(list(map(str, argv)), tmp_path / "stderr", 90) as terminal:
        shown = terminal.until(r"point (\d+)> ")
        assert "effect against drift" in shown
        (chosen,) = re.findall(r"\* +(\d+) .*chosen, in", shown)
        other = "1" if chosen != "1" else "2"
        files = {path.name: path.read_bytes() for path in out.iterdir()}
        terminal.type(f"{other}\n")
        terminal.until(rf"point {other}> ")
        terminal.type("t\n")
        terminal.until(PROMPT)
        terminal.type("hello\n")
        terminal.until("before:")
        terminal.interrupt("after:")
        terminal.interrupt(PROMPT)
        terminal.type("\x04")
        terminal.until(rf"point {other}> ")
        terminal.type("s\n")
        terminal.until(r"new directory \[.*\] ")
        terminal.type("\n")
        terminal.until(rf"point {other}> ")
        terminal.type("q\n")
        assert terminal.ends() == 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == files
    beside = out.with_name(f"out-{other}")
    saved = Intervention.load(beside / "intervention.safetensors")
    at = [point["chosen"] for point in saved.metrics["sweep"]].index(True)
    assert at == int(other) - 1
