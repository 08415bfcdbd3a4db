# SPDX-License-Identifier: Apache-2.0
"""A method is added by registering it: everything else reads its description."""

from __future__ import annotations

import csv
import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("tomli_w")
pytest.importorskip("yaml")

from support.cards import split
from support.measurements import make_measurement
from support.saved_models import save_tiny_model
from support.toy_method import TOY, ToyConfig

import cintervene as ci
from cintervene.cli import main
from cintervene.errors import ArgumentError
from cintervene.export import Origin, model_card
from cintervene.methods.registry import all_methods, register, unregister
from cintervene.models import loading

BEHAVIOURS = (
    "Behavior", "FunctionalCategory", "SemanticCategory", "Tags", "ContextString",
    "BehaviorID",
)  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    register(TOY)
    yield
    unregister("toy")


def test_python(model: Path) -> None:
    loaded = loading.load(model)
    change = ci.defend(*loaded, method="toy", layers=[1], charms=["clover", "horse"])
    config = ToyConfig(layers=[1], charms=["clover", "horse"])
    assert ci.defend(*loaded, config).digest == change.digest
    assert change.options == {
        "method": "toy", "layers": [1], "preserve": 0, "max_kl": 0.05, "size": 0.01,
        "charms": 2,
    }  # fmt: skip
    with pytest.raises(ArgumentError, match=r"siz: is no parameter of method 'toy'; d"):
        ci.defend(*loaded, method="toy", siz=3.0)
    with pytest.raises(ArgumentError, match="charms: got only their number, 2"):
        ci.defend(*loaded, ToyConfig.from_dict(change.options))


def test_help(capsys: Any) -> None:
    with pytest.raises(SystemExit):
        main(["defend", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "; toy: change weights at random (default: pcr)" in text
    assert "--size NUMBER toy: standard deviation of the change's factors (def" in text
    assert "--charms FILE toy: a UTF-8 file with texts that are said to help" in text
    assert "--max-kl NATS drift allowed on everyday prompts, a token" in text
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "a method to solve one with (pcr, tsr, arr, gate, toy)" in text


def test_command_line_and_files(model: Path, tmp_path: Path, capsys: Any) -> None:
    charms, out = tmp_path / "charms.txt", tmp_path / "out"
    charms.write_text("clover\nhorse shoe\n", "utf-8")
    argv = ["defend", "--model", str(model)]
    given = ["--method", "toy", "--charms", str(charms), "--size", "0.5"]
    assert main([*argv, *given, "--out", str(out)]) == 0
    assert "holds the change" in capsys.readouterr().out
    config = out / "config.toml"
    assert tomllib.loads(config.read_text("utf-8")) == {
        "method": "toy", "layers": "auto", "preserve": [], "max_kl": 0.05, "size": 0.5,
        "charms": ["clover", "horse shoe"],
    }  # fmt: skip
    again = tmp_path / "again"
    assert main([*argv, "--config", str(config), "--out", str(again)]) == 0
    first, second = (
        ci.Intervention.load(path / "intervention.safetensors") for path in (out, again)
    )
    assert first.digest == second.digest
    other = [*argv, "--out", str(tmp_path / "no"), "--harmful", "own", "--method"]
    assert main([*other, "tsr", "--size", "1"]) == 2
    told = "--size: is no option of method 'tsr' (but of 'toy'); leave it out"
    assert told in capsys.readouterr().err
    assert main([*other, "toy"]) == 2
    told = (
        "--harmful: is no option of method 'toy' (but of 'pcr', 'tsr', 'arr', 'gate')"
    )
    assert told in capsys.readouterr().err


def test_card(model: Path) -> None:
    change = ci.defend(*loading.load(model), method="toy", charms=["a"], size=2.0)
    card = model_card(change, Origin("lora"), {})
    _, sections = split(card)
    assert "It was found by throwing dice." in card
    assert "with 1 charms and size 2.0." in sections["Constraints"]
    assert "number is recorded: `charms` (1)." in sections["Constraints"]
    assert "| method | toy | change weights at random |" in sections["Constraints"]
    assert "| size | 2.00 | standard deviation" in sections["Constraints"]
    assert "Nothing is proved of luck." in sections["Certificate"]
    assert "| share of dice that fell well | 0.500 |" in sections["Measures"]
    assert "- Luck does not last." in sections["Limits"]
    assert (
        "--method toy --layers 0 --size 2.0 --charms FILE --out" in sections["Command"]
    )


def test_study(
    model: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = make_measurement()
    monkeypatch.setattr(
        "cintervene.cli.commands.study.measure", lambda *_, **__: measured
    )
    harmful, out = tmp_path / "harmful.csv", tmp_path / "out"
    with harmful.open("w", encoding="utf-8", newline="") as stream:
        rows = [BEHAVIOURS, ("Do a bad thing", "standard", "topic", "", "", "b0")]
        csv.writer(stream).writerows(rows)
    argv = ["evaluate", "--model", str(model), "--behaviours", str(harmful)]
    argv += ["--defence", "toy,toy+self-reminder", "--limit", "1", "--tokens", "3"]
    assert main([*argv, "--out", str(out), "--json"]) == 0
    study = json.loads(capsys.readouterr().out)["study"]
    assert study["defences"] == ["none", "toy", "toy+self-reminder"]
    assert ci.Intervention.load(out / "toy.safetensors").options["method"] == "toy"


def test_methods_are_named_once() -> None:
    register(TOY)
    assert list(all_methods()) == ["pcr", "tsr", "arr", "gate", "toy"]
