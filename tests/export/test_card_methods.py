# SPDX-License-Identifier: Apache-2.0
"""Each kind of change has a card of its own, which says nothing of the others."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("yaml")

from support.cards import split
from support.saved_models import save_tiny_model
from support.small_changes import FEW, KINDS, small_change

from cintervene.cli.arguments.parser import build_parser
from cintervene.cli.common.budgets import budgeted
from cintervene.export import Origin, model_card
from cintervene.intervention.intervention import Intervention
from cintervene.methods.registry import all_methods
from cintervene.models import loading
from cintervene.prompts.calibration_size import CalibrationSize

PCR = ["forbid", "examples", "harmful"]
TAUGHT = ["tsr", "arr", "gate"]
# What the command takes of each, besides the model and the method: what was recorded
# and is not the default.
COMMON = "layers preserve max-kl"
PUSHED = "concepts strength slack"
DESCENT = f"{COMMON} harmful max-false-refusals steps parts answers answer-tokens"
SIZES = " ".join(
    f"calibration-{name.replace('_', '-')}"
    for name, value in FEW.to_dict().items()
    if value != CalibrationSize().to_dict()[name]
)
FLAGS = {
    "forbid": f"{COMMON} forbid {PUSHED} {SIZES}",
    "examples": f"{COMMON} examples {PUSHED} {SIZES}",
    "harmful": f"{COMMON} harmful {PUSHED} {SIZES}",
    "tsr": f"{DESCENT} borderline safe",
    "arr": f"{DESCENT} borderline",
    "gate": f"{COMMON} harmful max-false-refusals refusal steps examples-per-step "
    "benign answer-tokens",
}
# What each says of its limits, which the others do not.
LIMITS = {
    "forbid": "Misspellings, other inflections, synonyms",
    "examples": "What the examples are about becomes less likely",
    "harmful": "all of 20 held-out requests",
    "tsr": "\n- Not every harmful request is refused",
    "arr": "gibberish in place of an answer",
    "gate": "an adapter at scale 1",
}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return loading.load(save_tiny_model(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture(scope="module")
def changes(loaded: Any) -> dict[str, Intervention]:
    return {kind: small_change(loaded, kind) for kind in KINDS}


def sections(change: Intervention) -> dict[str, str]:
    """The sections of a card by heading, and what comes before them as "Opening"."""
    card = model_card(change, Origin("lora"), {})
    opening = card.split("---\n", 2)[2].split("\n## ")[0]
    return {"Opening": opening, **split(card)[1]}


@pytest.mark.parametrize("kind", KINDS)
def test_how_it_was_found_and_what_it_is_for(changes: Any, kind: str) -> None:
    card = sections(changes[kind])
    assert ("Nothing was trained" in card["Opening"]) == (kind in PCR)
    assert ("found by" in card["Opening"]) == (kind in TAUGHT)
    if kind in TAUGHT:
        assert "2 steps of" in card["Opening"]
    told = {
        "forbid": "less likely to say 2 words: bomb, knife",
        "examples": "gave 3 examples of",
        "harmful": "answers to 3 harmful requests were made less likely",
        "tsr": "taught to refuse 3 harmful requests and what is like them. That",
        "arr": "5.0 nats a token were asked for. It was not taught to refuse",
        "gate": 'by saying "Sorry, but I can\'t help with that."',
    }
    for other, text in told.items():
        assert (text in card["Constraints"]) == (other == kind)
    count = "`preserve` (1), `" if kind != "forbid" else "`preserve` (1)."
    assert f"only the number is recorded: {count}" in card["Constraints"]
    assert "Limits were crossed" not in card["Opening"]


@pytest.mark.parametrize("kind", KINDS)
def test_only_pcr_has_a_certificate(changes: Any, kind: str) -> None:
    card = sections(changes[kind])["Certificate"]
    assert ("| layer | status |" in card) == (kind in PCR)
    assert (
        "What is reached is without slack, for the change as it was found" in card
    ) == (kind in PCR)
    assert ("nothing proves that no smaller change" in card) == (kind in TAUGHT)
    assert ("within `radius`" in card) == (kind in ("tsr", "arr"))
    if kind in TAUGHT:
        assert "|" not in card
        assert "Optimality was not proved for every layer" not in card


@pytest.mark.parametrize("kind", KINDS)
def test_tuning_figures_have_their_names_and_limits(changes: Any, kind: str) -> None:
    card = sections(changes[kind])["Measures"]
    assert ("after over before" in card) == (kind in PCR)
    refused = "share of benign requests refused, after minus before"
    assert (refused in card) == (kind in TAUGHT)
    # Thresholds were set.
    assert ("neurons open where an answer begins" in card) == (kind == "gate")
    assert not re.search(r"\| (opening|refused|false_refusals) \|", card)
    assert re.search(r"KL on benign answers, nats a token \| \S+ \| at most ", card)


@pytest.mark.parametrize("kind", KINDS)
def test_limits_are_those_of_the_method(changes: Any, kind: str) -> None:
    card = sections(changes[kind])["Limits"]
    for other, text in LIMITS.items():
        assert (text in card) == (other == kind)
    assert "take the change out again" in card


@pytest.mark.parametrize("kind", KINDS)
def test_the_command_is_one_that_there_is(changes: Any, kind: str) -> None:
    text = sections(changes[kind])["Command"]
    command = text.split("```")[1].strip()
    assert re.findall(r"--([a-z]\S+)", command) == [
        "model", "method", *FLAGS[kind].split(), "out",
    ]  # fmt: skip
    # What the command line says is read as it was recorded.
    arguments = build_parser().parse_args(shlex.split(command)[1:])
    options = changes[kind].options
    assert arguments.method == options["method"]
    for name, value in arguments.given.items():
        if value not in ("FILE", "WORDS"):
            held = options[name] if name != "strength" else arguments.given["strength"]
            assert held == (list(value) if isinstance(value, tuple) else value)
    assert "config.toml" in text
    assert "Set from Python" not in text
    if kind in PCR:
        again = budgeted(all_methods()["pcr"], arguments, {})
        assert again["calibration"] == options["calibration"]


@pytest.mark.parametrize("budget", CalibrationSize.budgets)
def test_a_budget_is_named(changes: Any, budget: str) -> None:
    held = changes["forbid"]
    sizes = CalibrationSize.named(budget, texts=3).to_dict()
    change = Intervention(held.edits, options={**held.options, "calibration": sizes})
    text = sections(change)["Command"]
    named = "" if budget == "default" else f"--budget {budget} "
    assert f"{named}--calibration-texts 3 --out OUT" in text
    assert text.count("--budget") == bool(named)


def test_what_only_python_takes_is_told(changes: Any) -> None:
    held = changes["arr"]
    change = Intervention(held.edits, options={**held.options, "attack_every": 3})
    assert (
        "Set from Python, for which the command has no option"
        in (sections(change)["Command"])
    )


@pytest.mark.parametrize("kind", TAUGHT)
def test_the_packages_own_requests_are_said_to_be_such(loaded: Any, kind: str) -> None:
    change = small_change(loaded, kind)
    change.options["harmful"] = None
    card = sections(change)
    assert "the package's own harmful requests" in card["Constraints"]
    assert "--harmful" not in card["Command"]
    assert "None" not in "".join(card.values()).replace("None, and the method", "")


OLD = {
    "gate": {"method": "gate", "layers": [1], "harmful": 12, "steps": 24, "lessons": 9,
             "refusal": "No.", "preserve": 0},
    "pcr": {"method": "pcr", "layers": [1], "forbid": ["bomb"], "matrix": "down_proj"},
    "arr": {"method": "arr", "layers": [1], "harmful": 12},
}  # fmt: skip


@pytest.mark.parametrize("method", OLD)
def test_older_interventions_have_a_card(changes: Any, method: str) -> None:
    options = OLD[method]
    change = Intervention(changes["tsr"].edits, options=options)
    card = sections(change)
    if method == "pcr":
        assert "say 1 words: bomb" in card["Constraints"]
    else:
        assert "12 harmful requests" in card["Constraints"]
    if method == "gate":
        assert "--examples-per-step 9" in card["Command"]
        assert "| examples_per_step | 9 | harmful examples" in card["Constraints"]
        assert "lessons" not in "".join(card.values())
    if method == "arr":
        assert "an unrecorded number of nats a token" in card["Constraints"]


def test_an_unknown_method_has_a_card(changes: Any) -> None:
    change = Intervention(changes["tsr"].edits, options={"method": "of others", "a": 1})
    card = sections(change)
    assert "How it was found was not recorded" in card["Opening"]
    assert "| a | 1 |" in card["Constraints"]
    assert "Command" not in card


def test_crossed_limits_are_said_first(loaded: Any) -> None:
    change = small_change(loaded, "tsr", max_kl=1e-30)
    assert not change.metrics["within_limits"]
    card = sections(change)
    assert re.match(r"# .*\n\n> \*\*Limits were crossed", card["Opening"].strip())
    assert re.search(
        r"KL on benign answers, nats a token: \S+, at most \S+ was allowed",
        card["Opening"],
    )
    assert "--beyond-limits" in card["Command"]


def test_words_beyond_their_limits_are_said_to_be(loaded: Any) -> None:
    change = small_change(loaded, "forbid", max_kl=1e-30)
    assert "Limits were crossed" in sections(change)["Opening"]


def test_scaled_and_added_changes_keep_their_stories(changes: Any) -> None:
    card = sections(changes["gate"].scale(0.5))
    assert "multiplied by 0.5" in card["Constraints"]
    assert LIMITS["gate"] in card["Limits"]
    assert "Nothing was trained" not in card["Opening"]
    assert "Command" not in card
    both = sections(changes["forbid"] + changes["tsr"])
    assert "bomb, knife" in both["Constraints"]
    assert "taught to refuse" in both["Constraints"]
    assert LIMITS["forbid"] in both["Limits"]
    assert LIMITS["tsr"] in both["Limits"]


def test_a_change_that_says_nothing_of_itself(changes: Any) -> None:
    known = changes["tsr"]
    bare = Intervention(known.edits, options={}, metrics={})
    card = sections(bare)
    assert "How it was found was not recorded" in card["Opening"]
    assert "How the change was made was not recorded" in card["Constraints"]
    assert "None was recorded" in card["Certificate"]
