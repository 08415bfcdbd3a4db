# SPDX-License-Identifier: Apache-2.0
"""The commands on a tiny model: results, exit codes, and what failures leave."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("matplotlib")

from support.gguf_files import base_of
from support.little_defences import FEW_TOML
from support.packed_layers import Codes, with_packed
from support.saved_models import save_tiny_model, work_little

from cintervene.cli import main
from cintervene.export import read_lora
from cintervene.intervention.intervention import Intervention
from cintervene.methods.defend import defend
from cintervene.models import loading

# Limits that any change of a random model keeps, and one that none reaches.
LENIENT = ["--min-effect", "1e-9", "--max-kl", "1e9", "--max-benign-loss", "1e9"]
TUNED = LENIENT
LENIENT = [*TUNED, "--max-obedience-loss", "1"]
OUT_OF_REACH = ["--min-effect", "1e9"]
FILES = [
    "config.toml", "intervention.safetensors", "layers.png", "report.html",
    "report.json", "report.md", "sweep.png",
]  # fmt: skip
# With as little as there can be.
STEPS = [
    "--steps=2", "--parts=1", "--answers=4", "--answer-tokens=2", "--borderline=24",
]  # fmt: skip
NEURONS = ["--steps=2", "--examples-per-step=4", "--benign=8", "--answer-tokens=2"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    work_little(monkeypatch)


@pytest.fixture
def words(tmp_path: Path) -> Path:
    path = tmp_path / "words.txt"
    path.write_text("bomb\nknife fight\n", "utf-8")
    return path


@pytest.fixture(scope="module")
def made(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An intervention on the tiny model."""
    path = tmp_path_factory.mktemp("made") / "intervention.safetensors"
    base, tokenizer = loading.load(model)
    found = defend(base, tokenizer, forbid=["bomb", "knife fight"], strength=4.0)
    # Of a random model nothing is expected; the commands are not to be refused.
    found.metrics["within_limits"] = True
    found.save(path)
    return path


@pytest.fixture
def beyond(made: Path, tmp_path: Path) -> Path:
    """The same, as if it had crossed a limit."""
    path = tmp_path / "beyond" / "intervention.safetensors"
    path.parent.mkdir()
    change = Intervention.load(made)
    point = {"chosen": True, "kl": 0.5}
    change.metrics.update({"within_limits": False, "sweep": [point]})
    change.save(path, beyond_limits=True)
    return path


def listing(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_defend(model: Path, words: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "out"
    before = files(model)
    argv = ["defend", "--model", str(model), "--forbid", str(words), "--out", str(out)]
    assert main([*argv, "--json", *LENIENT]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["options"]["forbid"] == ["bomb", "knife fight"]
    assert {goal["reached"] for goal in printed["goals"]} == {True}
    assert printed["measurement"]["forbidden"]["words"] == 2
    assert printed["files"] == listing(out)
    names = set(listing(out))
    assert {"intervention.safetensors", "report.html", "report.json"} <= names
    assert [name for name in names if name.endswith(".png")]
    json.loads((out / "report.json").read_text("utf-8"))
    assert listing(tmp_path) == sorted(
        ["out", "words.txt", *(f"out/{name}" for name in names)]
    )
    assert files(model) == before
    change = Intervention.load(out / "intervention.safetensors")
    loaded, _ = loading.load(model)
    assert change.apply(loaded).changed


@pytest.mark.parametrize(
    ("kind", "changed"),
    [
        ("qwen2", ["gate_proj", "up_proj", "down_proj"]),
        ("phi3", ["gate_up_proj", "down_proj"]),
        # Without gates, and with a norm behind the MLP.
        ("gpt2", ["c_proj", "c_proj"]),
        ("gemma3", ["down_proj", "down_proj"]),
    ],
)
def test_words_are_forbidden_whatever_the_model(
    words: Path, tmp_path: Path, kind: str, changed: list[str]
) -> None:
    own, out = save_tiny_model(tmp_path / "own", kind), tmp_path / "out"
    argv = ["defend", "--model", str(own), "--forbid", str(words), "--out", str(out)]
    assert main([*argv, "--strength", "12", "--no-evaluate", *TUNED]) == 0
    change = Intervention.load(out / "intervention.safetensors")
    assert [name.split(".")[-2] for name in change.edits] == changed
    # Of a random model no effect is expected, but that the change does something.
    (tried,) = change.metrics["sweep"]
    assert 1e-3 < tried["kl"] < math.inf
    argv = ["apply", "--model", str(own), "--out", str(tmp_path / "applied")]
    argv += ["--intervention", str(out / "intervention.safetensors")]
    assert main(argv) == 0
    stored = loading.load(tmp_path / "applied")[0].state_dict()
    base, _ = loading.load(own)
    change.apply(base)
    assert all(torch.equal(stored[k], v) for k, v in base.state_dict().items())


def test_teach_refusals(model: Path, tmp_path: Path, capsys: Any) -> None:
    requests, out = tmp_path / "requests.txt", tmp_path / "out"
    requests.write_text("How do I build a bomb?\nHelp me steal a car.\n", "utf-8")
    argv = ["defend", "--model", str(model), "--method", "tsr", "--layers", "1"]
    argv += [*STEPS, "--harmful", str(requests), "--out", str(out)]
    assert main([*argv, "--max-kl", "1e9"]) == 0
    shown = capsys.readouterr().out
    assert "KL, nats a token" in shown
    # What was not measured is said to be so, with what measures it.
    change = out / "intervention.safetensors"
    told = f"  cintervene evaluate --model {model} --intervention {change} --out DIR"
    assert told in shown.splitlines()
    assert listing(out) == FILES
    report = json.loads((out / "report.json").read_text("utf-8"))
    assert report["options"]["harmful"] == 2
    assert Intervention.load(out / "intervention.safetensors").edits
    argv[-1] = str(tmp_path / "again")
    crossed = [*argv, "--max-kl", "1e-30", "--max-false-refusals", "0.5"]
    assert main([*crossed, "--json"]) == 1
    shown = capsys.readouterr()
    printed = json.loads(shown.out)
    assert not printed["metrics"]["within_limits"]
    assert printed["options"]["max_false_refusals"] == 0.5
    assert printed["files"] == []
    told = "max_kl: got "
    assert printed["withheld"].startswith(told)
    assert f"cintervene: nothing was written; {told}" in shown.err
    assert not (tmp_path / "again").exists()
    assert main([*crossed, "--beyond-limits"]) == 1
    # Only one strength was tried, which makes no picture.
    assert {*listing(tmp_path / "again"), "sweep.png"} == set(FILES)
    assert main([*argv, "--forbid", "obedience"]) == 2


def test_refuse_by_gated_neurons(model: Path, tmp_path: Path, capsys: Any) -> None:
    requests, spared = tmp_path / "requests.txt", tmp_path / "spared.txt"
    requests.write_text("How do I build a bomb?\nHelp me steal a car.\n", "utf-8")
    spared.write_text("How do I defuse a quarrel?\n", "utf-8")
    argv = ["defend", "--model", str(model), "--method", "gate", "--layers", "1"]
    argv += [*NEURONS, "--harmful", str(requests), "--preserve", str(spared), "--out"]
    wide = ["--max-kl", "1e9", "--max-false-refusals", "1", "--thresholds", "0", "-.5"]
    assert main([*argv, str(tmp_path / "out"), *wide]) == 0
    shown = capsys.readouterr().out
    assert "opens at  in answers  refused" in shown
    assert "up_proj" in shown
    change = Intervention.load(tmp_path / "out" / "intervention.safetensors")
    assert len(change.edits) == 3
    assert change.options["thresholds"] == [0.0, -0.5]
    again = [*argv, str(tmp_path / "again"), "--matrix", "o_proj"]
    assert main(again) == 2
    assert "matrix: is no option of method 'gate'" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["--examples", "--harmful"])
def test_keep_away_from_what_texts_show(
    model: Path, tmp_path: Path, capsys: Any, kind: str
) -> None:
    few = text_file(tmp_path, FEW_TOML.encode(), "few.toml")
    texts, out = tmp_path / "texts.txt", tmp_path / "out"
    texts.write_text("Bees live in hives.\nHoney is sweet.\nBees sting.\n", "utf-8")
    argv = ["defend", "--model", str(model), kind, str(texts), "--layers", "1"]
    argv += ["--config", str(few)]
    assert main([*argv, "--out", str(out), *TUNED]) == 0
    assert "perplexity, times  benign words', times" in capsys.readouterr().out
    assert listing(out) == FILES
    report = json.loads((out / "report.json").read_text("utf-8"))
    assert report["options"][kind.removeprefix("--")] == 3
    again = [*argv, "--out", str(tmp_path / "again"), *TUNED]
    assert main([*again, *OUT_OF_REACH]) == 1
    # Too little of an effect crosses no limit.
    assert listing(tmp_path / "again") == listing(out)
    argv += ["--out", str(tmp_path / "none")]
    assert main([*argv, "--dry-run"]) == 0
    assert "GB of host memory" in capsys.readouterr().out
    both = [*argv, "--harmful", str(texts), "--examples", str(texts)]
    assert main(both) == 2
    assert "got examples and harmful" in capsys.readouterr().err
    path = str(out / "intervention.safetensors")
    shown = ["apply", "--model", str(model), "--intervention", path]
    assert main([*shown, "--out", str(tmp_path / "changed")]) == 0


def test_goal_not_reached(
    model: Path, words: Path, tmp_path: Path, capsys: Any
) -> None:
    out = tmp_path / "out"
    argv = ["defend", "--model", str(model), "--forbid", str(words), "--out", str(out)]
    argv += ["--no-evaluate", "--layers", "1", *TUNED]
    assert main([*argv, *OUT_OF_REACH]) == 1
    text = capsys.readouterr().out
    assert "1 weights, rank up to" in text
    assert (out / "intervention.safetensors").is_file()


@pytest.mark.parametrize("empty", [False, True])
def test_limits_crossed(
    model: Path, words: Path, tmp_path: Path, capsys: Any, empty: bool
) -> None:
    out = tmp_path / "out"
    if empty:
        out.mkdir()
    before = listing(tmp_path)
    argv = ["defend", "--model", str(model), "--forbid", str(words), "--out", str(out)]
    argv += ["--strength", "4", "--layers", "1", *TUNED, "--max-kl", "1e-30"]
    assert main(argv) == 1
    shown = capsys.readouterr()
    assert re.search(
        r"cintervene: nothing was written; max_kl: got \S+ on the tuning split, "
        r"expected 1e-30 at most; write it all the same with --beyond-limits",
        shown.err,
    )
    assert "holds the change" not in shown.out
    assert "chosen" in shown.out
    assert listing(tmp_path) == before
    assert main([*argv, "--no-evaluate", "--beyond-limits"]) == 1
    assert "holds the change" in capsys.readouterr().out
    change = out / "intervention.safetensors"
    text = (out / "report.md").read_text("utf-8")
    assert "--beyond-limits" in text
    argv = ["apply", "--model", str(model), "--intervention", str(change)]
    assert main([*argv, "--out", str(tmp_path / "changed")]) == 3
    assert not (tmp_path / "changed").exists()


@pytest.mark.parametrize(
    "command",
    [["apply"], ["export", "--to", "lora"], ["export", "--to", "checkpoint"]],
    ids=" ".join,
)
def test_beyond_limits_is_asked_for(
    model: Path, beyond: Path, tmp_path: Path, capsys: Any, command: list[str]
) -> None:
    argv = [*command, "--model", str(model), "--intervention", str(beyond)]
    argv += ["--out", str(tmp_path / "out")]
    before = listing(tmp_path)
    assert main(argv) == 3
    assert capsys.readouterr().err == (
        "cintervene: max_kl: got 0.5 on the tuning split, expected 0.05 at most; write "
        "it all the same with --beyond-limits\n"
    )
    assert listing(tmp_path) == before
    assert main([*argv, "--beyond-limits"]) == 0
    if command != ["export", "--to", "lora"]:
        argv = ["revert", "--model", str(tmp_path / "out"), "--intervention"]
        assert main([*argv, str(beyond), "--out", str(tmp_path / "back")]) == 0
        assert files(tmp_path / "back") == files(model)


def test_table_of_a_measurement(
    model: Path, made: Path, tmp_path: Path, capsys: Any
) -> None:
    argv = ["evaluate", "--model", str(model), "--intervention", str(made)]
    out = tmp_path / "report"
    assert main([*argv, "--out", str(out), *LENIENT]) == 0
    text = capsys.readouterr().out
    assert "Forbidden words (2)" in text
    assert "KL, nats a token" in text
    assert "MISSED" not in text
    assert (out / "report.md").is_file()
    assert main([*argv, "--json", *OUT_OF_REACH]) == 1
    goals = json.loads(capsys.readouterr().out)["goals"]
    assert not goals[0]["reached"]


@pytest.mark.parametrize("command", ["defend", "evaluate"])
def test_reports_on_packed_weights_do_not_advise_apply(
    model: Path, words: Path, made: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, command: str,
) -> None:  # fmt: skip
    def load_packed(*_: Any) -> tuple[Any, Any]:
        base, tokenizer = loading.load(model)
        return with_packed(base, Codes, layer=1), tokenizer

    monkeypatch.setattr(f"cintervene.cli.commands.{command}.load_named", load_packed)
    argv = [command, "--model", str(model), "--out", str(tmp_path / "out")]
    if command == "defend":
        argv += ["--forbid", str(words), "--layers", "1", "--no-evaluate", *TUNED]
    else:
        argv += ["--intervention", str(made), *LENIENT]
    assert main(argv) == 0
    text = (tmp_path / "out" / "report.md").read_text("utf-8")
    assert "attached.apply(model)" in text
    assert "intervention.apply(model)" not in text


def test_the_output_of_attention_is_changed_where_asked_for(
    model: Path, words: Path, tmp_path: Path, capsys: Any
) -> None:
    argv = ["defend", "--model", str(model), "--forbid", str(words)]
    argv += ["--layers", "1", "--matrix", "o_proj", "--out", str(tmp_path / "out")]
    assert main([*argv, "--dry-run"]) == 0
    name = "model.layers.1.self_attn.o_proj.weight"
    assert name in capsys.readouterr().out
    assert main([*argv, *LENIENT]) == 0
    change = Intervention.load(tmp_path / "out" / "intervention.safetensors")
    assert list(change.edits) == [name]


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_dry_run_writes_nothing(
    model: Path, words: Path, tmp_path: Path, capsys: Any, form: list[str]
) -> None:
    argv = ["defend", "--model", str(model), "--forbid", str(words), "--dry-run"]
    assert main([*argv, "--out", str(tmp_path / "out"), "--layers", "1", *form]) == 0
    text = capsys.readouterr().out
    assert listing(tmp_path) == ["words.txt"]
    assert "model.layers.1.mlp.down_proj.weight" in text
    assert "model.layers.0" not in text
    assert "KNIFE FIGHT" in text
    if form:
        plan = json.loads(text)
        assert plan["words"]["bomb"] == ["bomb", "Bomb", "BOMB"]
        assert [target["layer"] for target in plan["targets"]] == [1]
        assert plan["plan"]["host_bytes"] > plan["plan"]["model_bytes"] > 0
    else:
        assert "GB of host memory" in text


@pytest.mark.parametrize("kind", ["llama", "gemma2"])
def test_dry_run_and_explain_say_what_neurons_are_for(
    words: Path, tmp_path: Path, capsys: Any, kind: str
) -> None:
    own = save_tiny_model(tmp_path / "own", kind)
    argv = ["defend", "--model", str(own), "--forbid", str(words), "--dry-run"]
    argv += ["--out", str(tmp_path / "out")]
    assert main([*argv, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    changed = [one["weight"].split(".")[-2] for one in plan["targets"]]
    assert main(argv) == 0
    text = capsys.readouterr().out
    assert main(["explain", "--model", str(own), "--json"]) == 0
    about = json.loads(capsys.readouterr().out)["neurons"]
    assert main(["explain", "--model", str(own)]) == 0
    explained = capsys.readouterr().out
    # What is said beforehand is what is done.
    made = tmp_path / "made"
    argv = [*argv[:5], "--out", str(made), "--no-evaluate", *TUNED]
    assert main(argv) == 0
    done = Intervention.load(made / "intervention.safetensors")
    assert {one["weight"] for one in plan["targets"]} == {*done.edits}
    if kind == "gemma2":
        assert set(changed) == {"down_proj"}
        assert "neurons" not in plan
        assert about["words"] == ""
        assert "words (pcr): whole matrices" in explained
    else:
        assert changed == ["gate_proj", "up_proj", "down_proj"]
        assert done.metrics["neurons"] <= plan["neurons"]
        assert f"at most {plan['neurons']} of" in text
        assert about["words"] == "model.layers.1.mlp"
        assert "words (pcr): neurons of model.layers.1.mlp" in explained
    assert about["requests"]
    assert about["refusal"] == ""


def test_explain_says_why_gates_are_refused(tmp_path: Path, capsys: Any) -> None:
    own = save_tiny_model(tmp_path / "own", "gpt2")
    assert main(["explain", "--model", str(own)]) == 0
    assert "requests (gate): is refused: " in capsys.readouterr().out


def test_explain(model: Path, capsys: Any) -> None:
    assert main(["explain", "--model", str(model)]) == 0
    assert "model.layers.0.mlp.down_proj.weight" in capsys.readouterr().out
    assert main(["explain", "--model", str(model), "--layers=-1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["layers"] == 2
    assert [target["layer"] for target in found["targets"]] == [1]
    argv = ["explain", "--model", str(model), "--matrix", "o_proj", "--json"]
    assert main(argv) == 0
    found = json.loads(capsys.readouterr().out)
    names = [f"model.layers.{layer}.self_attn.o_proj.weight" for layer in range(2)]
    assert [target["weight"] for target in found["targets"]] == names


@pytest.mark.parametrize("tied", [True, False])
def test_explain_names_tied_embeddings(tmp_path: Path, capsys: Any, tied: bool) -> None:
    own = save_tiny_model(tmp_path / "own", tie_word_embeddings=tied)
    assert main(["explain", "--model", str(own)]) == 0
    said = "the unembedding is the input embedding" in capsys.readouterr().out
    assert said == tied
    assert main(["explain", "--model", str(own), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tied_embeddings"] == tied


def test_apply_and_revert(model: Path, made: Path, tmp_path: Path, capsys: Any) -> None:
    changed, back = tmp_path / "changed", tmp_path / "back"
    change = ["--intervention", str(made)]
    argv = ["apply", "--model", str(model), *change, "--out", str(changed)]
    assert main([*argv, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["weights"]
    assert files(changed) != files(model)
    loaded, _ = loading.load(changed)
    base, _ = loading.load(model)
    Intervention.load(made).apply(base)
    stored = loaded.state_dict()
    assert all(torch.equal(stored[k], v) for k, v in base.state_dict().items())
    assert main(["revert", "--model", str(changed), *change, "--out", str(back)]) == 0
    assert files(back) == files(model)


@pytest.mark.parametrize("to", ["lora", "checkpoint"])
def test_export(model: Path, made: Path, tmp_path: Path, capsys: Any, to: str) -> None:
    out = tmp_path / "out"
    argv = ["export", "--to", to, "--model", str(model), "--intervention", str(made)]
    assert main([*argv, "--out", str(out), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    change = Intervention.load(made)
    base, _ = loading.load(model)
    if to == "lora":
        stored = read_lora(change, out)
        assert printed["files"] == listing(out)
        assert max(printed["errors"].values()) < 1e-6
        assert all(stored[name].rank == printed["rank"] for name in change.edits)
    else:
        change.apply(base)
        loaded, _ = loading.load(out)
        name = printed["weights"][0]
        assert torch.equal(loaded.get_parameter(name), base.get_parameter(name))
    card = (out / "README.md").read_text("utf-8")
    assert change.digest in card
    assert "bomb, knife fight" in card
    assert "On the tuning split" in card
    assert listing(tmp_path) == sorted(["out", *(f"out/{n}" for n in listing(out))])


@pytest.mark.parametrize("to", ["lora", "gguf", "checkpoint"])
def test_export_of_a_lower_rank(
    model: Path, made: Path, tmp_path: Path, capsys: Any, to: str
) -> None:
    out, change = tmp_path / "out", Intervention.load(made)
    argv = ["export", "--to", to, "--intervention", str(made), "--out", str(out)]
    argv += ["--max-rank", "1", "--json"]
    if to == "checkpoint":
        assert main([*argv, "--model", str(model)]) == 2
        assert "--max-rank: is for adapters" in capsys.readouterr().err
        assert not out.exists()
        return
    if to == "gguf":
        pytest.importorskip("gguf")
        base, _ = loading.load(model)
        argv += ["--base", str(base_of(tmp_path / "base.gguf", base, "llama"))]
    assert main(argv) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["rank"] == 1
    for name, update in change.updates.items():
        values = np.linalg.svd(update.matrix(), compute_uv=False)
        lost = np.linalg.norm(values[1:]) / np.linalg.norm(values)
        assert printed["errors"][name] == pytest.approx(lost, rel=1e-3, abs=1e-6)
    assert max(printed["errors"].values()) > 1e-3


def test_export_measured_as_adapters_act(
    model: Path, made: Path, tmp_path: Path, capsys: Any
) -> None:
    argv = ["export", "--to", "lora", "--model", str(model), "--measure"]
    argv += ["--intervention", str(made), "--out", str(tmp_path / "out")]
    assert main(argv) == 0
    assert "read again, the change is off by" in capsys.readouterr().out
    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert "on the package's `held_out` split" in card
    assert "forbidden words' perplexity, said first" in card


def test_report_beside_the_intervention_is_used(
    model: Path, made: Path, tmp_path: Path, capsys: Any
) -> None:
    change = Intervention.load(made)
    copy = Path(shutil.copy(made, tmp_path / "copy.safetensors"))
    verdict = {
        "name": "some rise", "unit": "x", "limit": 5.0, "at_least": True,
        "measured": {"value": 6.0, "low": 5.5, "high": 7.0},
    }  # fmt: skip
    report = {"digest": change.digest, "verdicts": [verdict], "side_effects": []}
    argv = ["--model", str(model), "--intervention", str(copy), "--out"]
    for digest, shown in ((change.digest, True), ("another", False)):
        text = json.dumps(report | {"digest": digest})
        (tmp_path / "report.json").write_text(text, "utf-8")
        assert main(["apply", *argv, str(tmp_path / digest)]) == 0
        card = (tmp_path / digest / "README.md").read_text("utf-8")
        assert ("some rise" in card) == shown
    named = ["--report", str(tmp_path / "report.json")]
    assert main(["apply", *argv, str(tmp_path / "x"), *named]) == 3
    named = ["--report", str(model / "config.json")]
    assert main(["apply", *argv, str(tmp_path / "x"), *named]) == 2
    err = capsys.readouterr().err
    assert "report: is about another intervention" in err
    assert "--report: " in err
    assert not (tmp_path / "x").exists()


def test_compare(model: Path, made: Path, tmp_path: Path, capsys: Any) -> None:
    changed = tmp_path / "changed"
    change = ["--intervention", str(made)]
    assert main(["apply", "--model", str(model), *change, "--out", str(changed)]) == 0
    capsys.readouterr()
    assert main(["compare", str(model), str(model)]) == 0
    assert "are the same, to the bit" in capsys.readouterr().out
    assert main(["compare", str(model), str(changed)]) == 1
    assert "mlp.down_proj.weight  values" in capsys.readouterr().out
    assert main(["compare", str(model), str(changed), *change, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert not printed["same"]
    assert printed["explained"]
    assert {one["exact"] for one in printed["differences"]} == {True}


def test_apply_to_a_model_that_is_no_directory(
    model: Path, made: Path, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr("cintervene.cli.common.inputs.load", lambda *_, **__: loaded)
    loaded = loading.load(model)
    out = tmp_path / "out"
    argv = ["apply", "--model", "tiny", "--intervention", str(made), "--out", str(out)]
    assert main(argv) == 0
    assert not [name for name in listing(out) if name.startswith(".")]
    changed, _ = loading.load(out)
    Intervention.load(made).apply(loaded[0])
    stored = changed.state_dict()
    assert all(torch.equal(stored[k], v) for k, v in loaded[0].state_dict().items())


def damaged_model(tmp_path: Path, model: Path) -> Path:
    copy = Path(shutil.copytree(model, tmp_path / "damaged"))
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    return copy


def damaged_file(tmp_path: Path, made: Path) -> Path:
    content = bytearray(made.read_bytes())
    content[-3] ^= 1
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(content)
    return path


def other_model(tmp_path: Path) -> Path:
    return save_tiny_model(tmp_path / "other", rms_norm_eps=1e-5, intermediate_size=44)


def text_file(tmp_path: Path, content: bytes, name: str = "list.txt") -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


FAILURES = {
    "no words": (2, r"list\.txt has no words; write at least one word"),
    "not UTF-8": (2, r"list\.txt, line 1: byte 0xff .* save the word list as UTF-8"),
    "no word file": (3, r"no list or file named absent\.txt; give obedience"),
    "no model": (3, r"model 'absent' is neither .*hub, give --hub"),
    "damaged model": (3, r"damaged could not be loaded .* whole language model"),
    "no weights": (3, r"weights are missing"),
    "unspellable": (2, r"the tokenizer cannot spell 'café'.*remove the word"),
    "not empty": (2, r"--out: \S+ is not empty \(it holds words\.txt\); give a new"),
    "a file": (2, r"--out: \S+words\.txt is not a directory"),
    "below a file": (2, r"--out: got \S+words\.txt/out, expected a place in a directo"),
    "unwritable": (3, r".+"),
    "unknown method": (
        2,
        r"--method: got 'magic'; expected one of 'pcr', 'tsr', 'arr', 'gate'",
    ),
    "empty method": (2, r"--method: got ''; expected one of 'pcr'"),
    "no such layer": (2, r"--layers: got 7, expected indices in \[-2, 1\]"),
    "no intervention": (3, r"no such file or directory .*absent.*check the path"),
    "damaged intervention": (3, r"damaged.*sha256; get it again"),
    "not an intervention": (3, r"words\.txt cannot be read as an intervention"),
    "wrong base": (3, r"intervention was made for"),
    "not applied": (3, r"does not carry this intervention"),
    "no base": (2, r"--base: is missing; give the \.gguf file"),
    "no gguf": (3, r"config\.json is not a GGUF file"),
    "absent gguf": (3, r"no such file or directory .*absent"),
}


def failing(case: str, tmp_path: Path, model: Path, words: Path, made: Path) -> Any:
    """Arguments that fail in the way the case says."""
    defend = {"--model": model, "--forbid": words, "--out": tmp_path / "out"}
    apply = {"--model": model, "--intervention": made, "--out": tmp_path / "out"}
    match case:
        case "no words":
            return "defend", defend | {"--forbid": text_file(tmp_path, b"# none\n\n")}
        case "not UTF-8":
            return "defend", defend | {"--forbid": text_file(tmp_path, b"\xff\xfe")}
        case "no word file":
            return "defend", defend | {"--forbid": "absent.txt"}
        case "no model":
            return "defend", defend | {"--model": "absent"}
        case "damaged model":
            return "defend", defend | {"--model": damaged_model(tmp_path, model)}
        case "no weights":
            copy = damaged_model(tmp_path, model)
            (copy / "model.safetensors").unlink()
            return "explain", {"--model": copy}
        case "unspellable":
            return "defend", defend | {"--forbid": text_file(tmp_path, "café".encode())}
        case "not empty":
            return "defend", defend | {"--out": tmp_path}
        case "a file":
            return "defend", defend | {"--out": words}
        case "below a file":
            return "defend", defend | {"--out": words / "out"}
        case "unwritable":
            return "defend", defend | {"--out": "/proc/cintervene/out"}
        case "unknown method":
            return "defend", defend | {"--method": "magic"}
        case "empty method":
            return "defend", defend | {"--method": ""}
        case "no such layer":
            return "defend", defend | {"--layers": 7}
        case "no intervention":
            return "apply", apply | {"--intervention": tmp_path / "absent"}
        case "damaged intervention":
            return "apply", apply | {"--intervention": damaged_file(tmp_path, made)}
        case "not an intervention":
            return "evaluate", apply | {"--intervention": words}
        case "wrong base":
            return "apply", apply | {"--model": other_model(tmp_path)}
        case "not applied":
            return "revert", apply
        case "no base":
            return "export", apply | {"--to": "gguf"}
        case "no gguf":
            return "export", apply | {"--to": "gguf", "--base": model / "config.json"}
        case "absent gguf":
            return "export", apply | {"--to": "gguf", "--base": tmp_path / "absent"}


@pytest.mark.parametrize("case", FAILURES)
def test_failures(
    case: str, model: Path, words: Path, made: Path, tmp_path: Path, capsys: Any
) -> None:
    code, line = FAILURES[case]
    command, options = failing(case, tmp_path, model, words, made)
    argv = [str(part) for pair in options.items() for part in pair]
    before = listing(tmp_path)
    assert main([command, *argv]) == code
    out, err = capsys.readouterr()
    assert out == ""
    told = [text for text in err.splitlines() if text.startswith("cintervene: ")]
    assert len(told) == 1
    assert re.search(line, told[0])
    assert "Traceback" not in err
    assert listing(tmp_path) == before
