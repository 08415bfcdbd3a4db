# SPDX-License-Identifier: Apache-2.0
"""Model cards say what was asked, proved and measured, and which bytes they mean."""

from __future__ import annotations

import hashlib
import json
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.cards import split

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
yaml = pytest.importorskip("yaml")

from cintervene.errors import InterventionError
from cintervene.export import Origin, checkpoint, lora, model_card
from cintervene.export.checkpoint.shards import Shards
from cintervene.export.checkpoint.write import revert_directory
from cintervene.intervention.intervention import Intervention
from cintervene.models import find_targets, loading
from cintervene.solvers.update import LowRankUpdate

OPTIONS = {
    "forbid": ["bomb", "knife"],
    "method": "pcr",
    "layers": [1],
    "solver": "exact",
}
LAYER = {
    "name": "n",
    "layer": 1,
    "status": "CONVERGED",
    "cost": 2.5,
    "shortfall": 0.25,
    "reached": 1.5,
    "reached_rounded": 1.25,
}
POINT = {"strength": 14.0, "forbidden_ratio": 7.5, "kl": 0.0312, "chosen": True}
VERDICT = {
    "name": "a rise", "unit": "x", "limit": 5.0, "at_least": True,
    "measured": {"value": 4.0, "low": 3.0, "high": 6.0},
}  # fmt: skip


def make(model: Any, options: dict[str, Any] = OPTIONS, **metrics: Any) -> Intervention:
    source = np.random.default_rng(3)
    target = find_targets(model, [1])[0]
    left = source.normal(size=(target.d_out, 3)) * 0.3
    update = LowRankUpdate(left, source.normal(size=(3, target.d_in)))
    return Intervention.of(model, [(target, update)], options=options, metrics=metrics)


def test_sections(tiny_model: Any) -> None:
    model = tiny_model("llama")
    change = make(model, layers=[LAYER], sweep=[POINT])
    report = {
        "digest": change.digest, "verdicts": [VERDICT],
        "measurement": {"split": "held_out"}, "side_effects": ["Prose got worse."],
    }  # fmt: skip
    origin = Origin("lora", "a/base", report, {"n": 1.5e-8})
    front, sections = split(model_card(change, origin, {"a.safetensors": "ab12"}))
    assert front["base_model"] == "a/base"
    assert front["base_model_relation"] == "adapter"
    assert front["cintervene"]["digest"] == change.digest
    assert "bomb, knife" in sections["Constraints"]
    assert "| solver | exact |" in sections["Constraints"]
    assert "| 1 | CONVERGED | 2.50 | 1.50 | 0.250 |" in sections["Certificate"]
    assert "proved global optimum" in sections["Certificate"]
    assert (
        "| a rise | 4.00 x (at least 5; too close to be sure) | [3.00, 6.00] | "
        "**missed** |" in sections["Measures"]
    )
    assert "Prose got worse." in sections["Measures"]
    assert "1.5e-08 of its norm" in sections["Measures"]
    assert "not impossible" in sections["Limits"]
    assert "--method pcr --layers 1" in sections["Command"]
    edit = next(iter(change.edits.values()))
    for text in (edit.base_sha256, edit.result_sha256, change.digest, "ab12"):
        assert text in sections["Hashes"]


def test_what_is_reached_is_that_of_the_form(tiny_model: Any) -> None:
    change = make(tiny_model("llama"), layers=[LAYER])
    for form, row in (("gguf", "2.50 | 1.50"), ("checkpoint", "2.50 | 1.25")):
        _, sections = split(model_card(change, Origin(form), {}))
        assert row in sections["Certificate"]
        assert "computed when the change was made" in sections["Certificate"]
        assert "after the rounding of this form" not in sections["Certificate"]


def test_the_command_rounds_no_option(tiny_model: Any) -> None:
    options = OPTIONS | {"layers": [1, 2], "max_kl": 0.012345}
    change = make(tiny_model("llama"), options, strength=13.3333)
    _, sections = split(model_card(change, Origin("lora"), {}))
    assert (
        "--layers 1,2 --max-kl 0.012345 --forbid WORDS --strength 13.3333 --out"
        in (sections["Command"])
    )


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("examples", "likely to say what its authors gave 9 examples of"),
        ("harmful", "answers to 9 harmful requests were made less likely. It was not"),
    ],
)
def test_a_change_without_words_says_what_it_is_for(
    tiny_model: Any, kind: str, told: str
) -> None:
    options = {kind: 9, "method": "pcr", "layers": [1], "concepts": "difference"}
    change = make(tiny_model("llama"), options, layers=[LAYER | {"asked": 3.0}])
    _, sections = split(model_card(change, Origin("lora"), {}))
    assert told in sections["Constraints"]
    assert "asked, distances to benign" in sections["Certificate"]
    assert f"--method pcr --layers 1 --{kind} FILE" in sections["Command"]


def test_nothing_is_claimed_that_is_not_known(tiny_model: Any) -> None:
    model = tiny_model("llama")
    _, sections = split(model_card(make(model), Origin("checkpoint"), {}))
    assert "None was recorded" in sections["Certificate"]
    assert "Not measured." in sections["Measures"]
    assert "was not measured on held-out data" in sections["Limits"]
    stalled = make(model, layers=[LAYER | {"status": "STALLED"}])
    _, sections = split(model_card(stalled, Origin("checkpoint"), {}))
    assert "not proved" in sections["Certificate"]
    tuned = make(model, sweep=[POINT])
    _, sections = split(model_card(tuned, Origin("checkpoint"), {}))
    assert "On the tuning split" in sections["Measures"]
    assert "forbidden words, after over before | 7.50 |" in sections["Measures"]


def test_report_of_another_change_is_refused(tiny_model: Any, tmp_path: Path) -> None:
    change = make(tiny_model("llama"))
    report = {"digest": change.scale(2).digest}
    with pytest.raises(InterventionError, match="about another intervention"):
        lora(change, tmp_path / "out", report=report)
    assert list(tmp_path.iterdir()) == []


def test_card_of_an_adapter(tiny_model: Any, tmp_path: Path) -> None:
    made = lora(make(tiny_model("llama")), tmp_path / "out", base="a/base")
    card = (made.path / "README.md").read_text("utf-8")
    front, sections = split(card)
    assert front["library_name"] == "peft"
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        digest = hashlib.sha256((made.path / name).read_bytes()).hexdigest()
        assert f"| `{name}` | `{digest}` |" in sections["Hashes"]


BASE_CARD = """---
license: apache-2.0
language: en
model-index:
- name: base
---
# Base
"""


@pytest.mark.parametrize("card", [None, BASE_CARD, "# no front matter\n"])
def test_card_of_a_checkpoint(tiny_model: Any, tmp_path: Path, card: Any) -> None:
    model = tiny_model("llama").bfloat16()
    base = tmp_path / "base"
    with loading.quiet():
        model.save_pretrained(base)
    if card:
        (base / "README.md").write_text(card, "utf-8")
    before = {path.name: path.read_bytes() for path in base.iterdir()}
    change = make(model)
    made = checkpoint(change, base, tmp_path / "changed")
    text = (made.path / "README.md").read_text("utf-8")
    front, sections = split(text)
    assert front["base_model_relation"] == "finetune"
    assert front.get("license") == ("apache-2.0" if card == BASE_CARD else None)
    digest = hashlib.sha256((made.path / "model.safetensors").read_bytes()).hexdigest()
    assert digest in sections["Hashes"]
    assert (made.path / "BASE_README.md").exists() == (card is not None)
    back = tmp_path / "back"
    back.mkdir()
    revert_directory(change, made.path, back)
    assert {path.name: path.read_bytes() for path in back.iterdir()} == before


@pytest.mark.parametrize("block", [1, 100, 1 << 20])
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_errors_of_a_checkpoint_are_those_of_its_rounding(
    tiny_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str,
    block: int,
) -> None:  # fmt: skip
    # By its module, since `export.checkpoint` is the function.
    writing = import_module("cintervene.export.checkpoint.write")
    monkeypatch.setattr(writing, "BLOCK", block)
    model = tiny_model(name).bfloat16()
    with loading.quiet():
        model.save_pretrained(tmp_path / "base")
    change = make(model)
    ((key, edit),) = change.edits.items()
    made = checkpoint(change, tmp_path / "base", tmp_path / "changed")
    before = model.get_parameter(key).detach().double().clone()
    change.apply(model)
    stored = Shards(made.path)
    assert torch.equal(stored.read(stored.find(key, edit)), model.get_parameter(key))
    off = model.get_parameter(key).detach().double() - before
    meant = torch.from_numpy(edit.update.matrix())
    meant = meant.T if edit.transposed else meant
    assert made.errors[key] == pytest.approx(float((off - meant).norm() / meant.norm()))
    assert 1e-4 < made.errors[key] < 1e-2
    assert json.dumps(made.errors)
    assert made.changed == [key]


def test_a_change_of_rank_0_has_no_errors(tiny_model: Any, tmp_path: Path) -> None:
    model = tiny_model("llama")
    with loading.quiet():
        model.save_pretrained(tmp_path / "base")
    (nothing,) = find_targets(model, [2])
    pairs = [(nothing, LowRankUpdate.zero(nothing.d_out, nothing.d_in))]
    made = checkpoint(
        make(model) + Intervention.of(model, pairs),
        tmp_path / "base", tmp_path / "changed",
    )  # fmt: skip
    assert made.errors[nothing.name] == 0.0
    assert made.unchanged == [nothing.name]
