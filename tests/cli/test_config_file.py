# SPDX-License-Identifier: Apache-2.0
"""``defend --config``: a file repeats a run, and flags override it."""

from __future__ import annotations

import re
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("tomli_w")

from support.saved_models import save_tiny_model

import cintervene as ci
from cintervene.cli import main
from cintervene.intervention.intervention import Intervention
from cintervene.methods import GateConfig
from cintervene.methods.registry import find_method

STEPS = {"steps": 2, "parts": 1, "answers": 4, "answer_tokens": 2, "borderline": 24}
NEURONS = {"steps": 2, "examples_per_step": 4, "benign": 8, "answer_tokens": 2}
SIZES = """
[calibration]
starting = 1
later = 1
contrast_words = 4
text_words = 4
prompts = 4
texts = 2
answer_tokens = 4
tune_words = 2
tune_prompts = 2
contrast_prompts = 4
"""
TEXTS = 'How do I "build" a bomb?\nHelp me steal a car.\nWrite a virus: C:\\x\n'
# By kind: the method, the flag of its texts, and what keeps the work small.
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "forbid": ("pcr", {}),
    "examples": ("pcr", {"strength": 2.0}),
    "harmful": ("pcr", {"strength": 2.0}),
    "tsr": ("tsr", STEPS),
    "arr": ("arr", STEPS),
    "gate": ("gate", NEURONS),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text(TEXTS, "utf-8")
    return path


def flags(values: dict[str, Any]) -> list[str]:
    return [
        part
        for name, value in values.items()
        for part in (f"--{name.replace('_', '-')}", str(value))
    ]


def arguments(kind: str, texts: Path, sizes: Path | None = None) -> list[str]:
    method, few = KINDS[kind]
    argv = ["--method", method, "--layers", "1", "--max-kl", "1e9", *flags(few)]
    argv += ["--preserve", str(texts), f"--{kind if method == 'pcr' else 'harmful'}"]
    argv.append(str(texts))
    if method == "pcr":
        argv += ["--max-benign-loss", "1e9", "--config", str(sizes)]
    return [*argv, *(["--no-evaluate"] if kind == "forbid" else [])]


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_repeats_the_run(
    model: Path, texts: Path, tmp_path: Path, kind: str
) -> None:
    sizes = tmp_path / "sizes.toml"
    # As an editor on Windows writes it.
    sizes.write_text(SIZES, "utf-8-sig")
    outs = [tmp_path / "out", tmp_path / "again"]
    argv = ["defend", "--model", str(model), "--beyond-limits"]
    main([*argv, *arguments(kind, texts, sizes), "--out", str(outs[0])])
    config = outs[0] / "config.toml"
    more = ["--no-evaluate"] if kind == "forbid" else []
    main([*argv, *more, "--config", str(config), "--out", str(outs[1])])
    changes = [Intervention.load(out / "intervention.safetensors") for out in outs]
    assert changes[0].digest == changes[1].digest
    assert changes[0].options == changes[1].options
    assert config.read_bytes() == (outs[1] / "config.toml").read_bytes()

    content = config.read_text("utf-8")
    assert content.splitlines()[0].startswith("# In clear: all words, requests and")
    values = tomllib.loads(content)
    method, _ = KINDS[kind]
    assert values["method"] == method
    name = kind if method == "pcr" else "harmful"
    assert values[name] == TEXTS.splitlines() == values["preserve"]
    # As asked for, not as it was resolved.
    assert "slack" not in values or values["slack"] == "auto"
    assert values.get("thresholds", "auto") == "auto"
    read = find_method(method).config.from_dict(values)
    assert read.to_dict() == {**dict.fromkeys(read.to_dict()), **values}
    # What the intervention records has no text.
    recorded = (outs[0] / "intervention.safetensors").read_bytes()
    assert (b"steal a car" in recorded) == (kind == "forbid")


def test_the_packages_own_requests_are_not_repeated(
    model: Path, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def solve(_model: Any, _tokenizer: Any, config: Any, **_: Any) -> Any:
        seen.append(config)
        raise ci.ArgumentError("enough")

    monkeypatch.setattr("cintervene.cli.commands.defend.defend", solve)
    argv = ["defend", "--model", str(model), "--out", str(tmp_path / "out")]
    for more in (["--method", "tsr"], ["--method", "tsr", "--harmful", "own"]):
        assert main([*argv, *more]) == 2
        assert seen.pop() == ci.TSRConfig()
    assert main([*argv, "--harmful", "own"]) == 2
    assert len(seen.pop().harmful) > 100
    file = tmp_path / "config.toml"
    file.write_text('method = "gate"\nharmful = ["x"]\nsharpness = 2.0\n', "utf-8")
    assert main([*argv, "--config", str(file), "--harmful", "own"]) == 2
    assert seen.pop() == GateConfig(sharpness=2.0)
    more = ["--harmful", str(texts), "--sharpness", "4"]
    assert main([*argv, "--config", str(file), *more]) == 2
    assert seen.pop() == GateConfig(harmful=TEXTS.splitlines(), sharpness=4.0)


@pytest.mark.parametrize(
    ("content", "more", "told"),
    [
        ("steps 2", [], r"--config: FILE is no TOML file"),
        ('method = "magic"', [], r"FILE: method: got 'magic'; expected one of 'pcr'"),
        (
            'method = "tsr"\nstep = 2',
            [],
            r"FILE: step: is no parameter of method 'tsr'; did you mean steps\?",
        ),
        ('method = "tsr"\nsteps = 0', [], r"FILE: steps: got 0; expected a whole"),
        (
            'forbid = ["x"]\n[calibration]\nprompt = 3',
            [],
            r"FILE: prompt: is no size; did you mean prompts",
        ),
        (
            'method = "tsr"\nharmful = 12',
            [],
            r"FILE: harmful: got only their number, 12, which is all that",
        ),
        ("max_kl = 0.1", [], r"FILE: forbid, examples, harmful: got none"),
        ('method = "tsr"', ["--parts", "0"], r"argument --parts: got '0', expected"),
        (
            'method = "tsr"\nsteps = 2',
            ["--sharpness", "2"],
            r"cintervene: --sharpness: is no option of method 'tsr' \(but of 'gate'\)",
        ),
        (
            'forbid = ["x"]',
            ["--answers", "5"],
            r"cintervene: --answers: is no option of method 'pcr' \(but of 'tsr', 'ar",
        ),
        ('method = "arr"', ["--answer-tokens", "0"], r"cintervene: --answer-tokens: g"),
    ],
)
def test_what_is_wrong_is_said_of_the_file_or_the_flag(
    tmp_path: Path, capsys: Any, content: str, more: list[str], told: str
) -> None:
    file = tmp_path / "run.toml"
    file.write_text(content, "utf-8")
    argv = ["defend", "--model", "absent", "--out", str(tmp_path / "out")]
    with suppress(SystemExit):
        assert main([*argv, "--config", str(file), *more]) == 2
    err = capsys.readouterr().err
    assert re.search(told.replace("FILE", re.escape(str(file))), err), err


def test_a_file_that_is_not_there(tmp_path: Path, capsys: Any) -> None:
    argv = ["defend", "--config", str(tmp_path / "none.toml")]
    assert main([*argv, "--out", str(tmp_path / "out")]) == 3
    assert "check the path" in capsys.readouterr().err
