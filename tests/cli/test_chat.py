# SPDX-License-Identifier: Apache-2.0
"""``cintervene chat`` with lines from a pipe: answers, commands, exit codes."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from support.interventions import random_intervention
from support.saved_models import save_tiny_model

from cintervene.cli import main
from cintervene.intervention.intervention import Intervention
from cintervene.models import loading
from cintervene.prompts.chat import generate, render

TOKENS = 8


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def change(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made") / "intervention.safetensors"
    loaded, _ = loading.load(model)
    random_intervention(loaded, [0, 1]).save(path)
    return path


@pytest.fixture
def chat(model: Path, change: Path, capsys: Any, monkeypatch: Any) -> Any:
    """Have lines answered; returns the exit code and what was printed."""

    def run(lines: str, *flags: str, changed: bool = True) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", io.StringIO(lines))
        argv = ["chat", "--model", str(model), "--max-new-tokens", str(TOKENS), *flags]
        code = main([*argv, *(["--intervention", str(change)] if changed else [])])
        return code, *capsys.readouterr()

    return run


def turns(printed: str) -> list[dict[str, Any]]:
    return list(json.loads(printed)["turns"])


def answer(model: Path, change: Intervention | None, *said: str) -> str:
    """What the model says at the end of a conversation, by the weights themselves."""
    loaded, tokenizer = loading.load(model)
    if change is not None:
        change.apply(loaded)
    *before, question = said
    roles = ("user", "assistant") * len(before)
    past = list(zip(roles, before, strict=False))
    prompt = render(tokenizer, question, turns=past)
    (tokens,) = generate(loaded, tokenizer, [prompt], TOKENS)
    return str(tokenizer.decode(tokens, skip_special_tokens=True)).strip()


def test_both_answer_and_each_remembers_its_own(
    chat: Any, model: Path, change: Path
) -> None:
    code, out, _ = chat("hello\nand then?\n", "--json")
    assert code == 0
    first, second = turns(out)
    for side, made in (("before", None), ("after", Intervention.load(change))):
        assert first[side] == answer(model, made, "hello")
        assert second[side] == answer(model, made, "hello", first[side], "and then?")
    assert first["before"] != first["after"]


def test_plain_text_for_pipes(chat: Any) -> None:
    code, out, err = chat("hello\n")
    assert code == 0
    begun, before, after = out.partition("\n\nafter:\n")
    assert begun.startswith("before:\n")
    assert before
    assert after.endswith("\n\n")
    assert "\x1b" not in out
    assert f"answers end after {TOKENS} tokens" in err


def test_a_model_alone_is_a_plain_chat(chat: Any, model: Path) -> None:
    code, out, _ = chat("hello\n", changed=False)
    assert code == 0
    assert "before:" not in out
    (turn,) = turns(chat("hello\n", "--json", changed=False)[1])
    assert turn["answer"] == answer(model, None, "hello")


def test_commands(chat: Any, model: Path, change: Path) -> None:
    lines = [
        "/after", "hello", "/strength 0.5", "/reset", "hello", "/base",
        "/strength 0", "/reset", "hello", "/both", "/reset", "hello", "//help", "/quit",
        "hello",
    ]  # fmt: skip
    code, out, _ = chat("\n".join(lines), "--json")
    assert code == 0
    made = Intervention.load(change)
    whole, half, base, both, slash = turns(out)
    assert "before" not in whole
    assert whole["after"] == answer(model, made, "hello")
    assert half["after"] == answer(model, made.scale(0.5), "hello")
    assert (half["strength"], base["strength"]) == (0.5, 0.0)
    assert "after" not in base
    assert base["before"] == answer(model, None, "hello")
    assert both["before"] == both["after"] == base["before"]
    assert slash["question"] == "/help"


def test_help_lists_the_commands_there_are(chat: Any) -> None:
    _, out, _ = chat("/help\n")
    assert "/strength X" in out
    _, out, _ = chat("/help\n", changed=False)
    assert "/strength" not in out
    assert "/reset" in out


def test_a_system_prompt_and_a_seed_matter(chat: Any) -> None:
    def said(*flags: str) -> str:
        return str(turns(chat("hello\n", "--json", *flags, changed=False)[1])[0])

    assert said("--system", "Be kind.") != said()
    warm = ("--temperature", "5", "--seed")
    assert said(*warm, "1") == said(*warm, "1") != said(*warm, "2")


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("/shout\n", "/shout: there is no such command here; /help lists them"),
        ("/strength\n", "/strength: got '', expected a number such as 0.5"),
        ("/strength nan\n", "/strength: got 'nan'"),
        ("/strength 1e-30\n", "nothing was changed"),
        ("x" * 2000 + "\n", "conversation: it has become"),
    ],
)
def test_what_cannot_be_met_ends_a_pipe(chat: Any, lines: str, told: str) -> None:
    code, out, err = chat(lines)
    assert code == (3 if told.startswith("nothing") else 2)
    assert out == ""
    assert err.splitlines()[-1].startswith(f"cintervene: {told}")


def test_there_is_no_strength_without_a_change(chat: Any) -> None:
    code, _, err = chat("/strength 2\n", changed=False)
    assert code == 2
    assert "/strength: there is no such command here" in err


def test_wrong_files(chat: Any, model: Path, change: Path, tmp_path: Path) -> None:
    code, _, err = chat("", "--intervention", str(tmp_path / "none"), changed=False)
    assert (code, "no such file" in err) == (3, True)
    other = save_tiny_model(tmp_path / "other", num_hidden_layers=1)
    code, _, err = chat("", "--model", str(other))
    assert code == 3
    assert "has no parameter model.layers.1" in err


@pytest.mark.model
def test_smollm2_before_and_after(
    smollm2: Any, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    model, tokenizer = smollm2
    change = random_intervention(model, [28, 29])
    change.save(tmp_path / "intervention.safetensors")
    question = "What is the capital of France?"
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{question}\n"))
    argv = ["chat", "--json", "--max-new-tokens", "12", "--intervention"]
    assert main([*argv, str(tmp_path / "intervention.safetensors")]) == 0
    (turn,) = turns(capsys.readouterr().out)
    assert "Paris" in turn["before"]
    prompt = render(tokenizer, question)
    with change.applied(model):
        (tokens,) = generate(model, tokenizer, [prompt], 12)
    assert turn["after"] == tokenizer.decode(tokens, skip_special_tokens=True).strip()
    assert turn["after"] != turn["before"]
