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
from support.small_changes import KINDS, small_change

from cintervene.cli.arguments.parser import build_parser
from cintervene.export import Origin, model_card
from cintervene.intervention.intervention import Intervention
from cintervene.methods.tsr.config import TSROptions
from cintervene.models import loading

PCR = ["forbid", "examples", "harmful"]
TAUGHT = ["tsr", "arr", "gate"]
# What the command takes of each, besides method and layers, in order.
WORDS = "matrix concepts strength min-effect max-kl max-benign-loss preserve"
DESCENT = "matrix max-kl max-false-refusals preserve"
FLAGS = {
    "forbid": WORDS, "examples": WORDS, "harmful": WORDS, "tsr": DESCENT,
    "arr": DESCENT, "gate": "max-kl max-false-refusals preserve",
}  # fmt: skip
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
        "tsr": "taught to refuse 3 harmful requests and what is like them; they",
        "arr": "5.0 nats a token were asked for. It was not taught to refuse",
        "gate": 'by saying "Sorry, but I can\'t help with that."',
    }
    for other, text in told.items():
        assert (text in card["Constraints"]) == (other == kind)
    assert "besides the package's own: 1; they are not rec" in card["Constraints"]
    assert "Limits were crossed" not in card["Opening"]


@pytest.mark.parametrize("kind", KINDS)
def test_only_pcr_has_a_certificate(changes: Any, kind: str) -> None:
    card = sections(changes[kind])["Certificate"]
    assert ("| layer | status |" in card) == (kind in PCR)
    assert ("*Reached* is without slack, for the change as it was found" in card) == (
        kind in PCR
    )
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
    assert re.findall(r"--(\S+)", command) == [
        "model", kind if kind in PCR else "harmful", "method", "layers",
        *FLAGS[kind].split(), "out",
    ]  # fmt: skip
    known = build_parser()._subparsers
    assert known is not None
    words = shlex.split(command)[1:]
    flags = known._group_actions[0].choices["defend"]._option_string_actions
    # Not all versions of the command have it.
    unknown = [one for one in words if one.startswith("--") and one not in flags]
    assert set(unknown) <= {"--max-false-refusals"}
    set_ = re.search("Set from Python.*", text)
    assert (set_ is not None) == (kind in TAUGHT)
    if set_ is not None:
        assert "`steps` 2" in set_[0]
        assert "max_kl" not in set_[0]
        assert "radius" not in set_[0]


def test_crossed_limits_are_said_first(loaded: Any) -> None:
    options = TSROptions(steps=2, parts=1, answers=4, answer_tokens=2, borderline=24)
    change = small_change(loaded, "tsr", max_kl=1e-30, options=options)
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
