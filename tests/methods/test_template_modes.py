# SPDX-License-Identifier: Apache-2.0
"""Entries that render prompts do so in all modes of a template, or in the one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from support.templates import PLAIN, QWEN3, make_tokenizer
from support.tiny_models import make_tiny_model

import cintervene as ci
from cintervene import evaluate
from cintervene.attacks import RelaxedPGD, Request
from cintervene.attacks.ablation import refusal_direction
from cintervene.attacks.runner import run_attack
from cintervene.baselines import Generation, Undefended
from cintervene.errors import ArgumentError
from cintervene.prompts.template import ChatTokenizer

FALSE = {"enable_thinking": False}
FEW = {"benign": 6, "steps": 2, "answer_tokens": 2, "layers": [1]}
REQUESTS = [f"Do thing {number}." for number in range(4)]
Modes = list[dict[str, Any]]


@pytest.fixture
def pair() -> Any:
    tokenizer = make_tokenizer(QWEN3)
    model = make_tiny_model(
        "llama", vocab_size=len(tokenizer), max_position_embeddings=2048
    )
    return model, tokenizer


@pytest.fixture
def modes(monkeypatch: pytest.MonkeyPatch) -> Modes:
    """The modes of all prompts that are rendered, but for the probe's."""
    seen: Modes = []
    rendered = ChatTokenizer._text

    def text(self: ChatTokenizer, prompt: str, options: Any) -> str:
        if "quokka" not in prompt and dict(options) not in seen:
            seen.append(dict(options))
        return rendered(self, prompt, options)

    monkeypatch.setattr(ChatTokenizer, "_text", text)
    return seen


def gate(model: Any, tokenizer: Any, options: Any) -> Any:
    return ci.defend(
        model, tokenizer, method="gate", harmful=REQUESTS, template_options=options,
        thresholds=(0.0, 0.0), max_kl=1e9, max_false_refusals=1.0, **FEW,
    )  # fmt: skip


def tsr(model: Any, tokenizer: Any, options: Any) -> Any:
    return ci.defend(
        model, tokenizer, method="tsr", harmful=REQUESTS, template_options=options,
        layers=[1], steps=1, parts=1, answers=4, answer_tokens=2, borderline=4,
        max_kl=1e9, max_false_refusals=1.0,
    )  # fmt: skip


def pcr(model: Any, tokenizer: Any, options: Any) -> Any:
    size = ci.CalibrationSize(
        starting=1, later=1, contrast_words=4, text_words=4, prompts=4, texts=1,
        answer_tokens=2, tune_words=2, tune_prompts=2,
    )  # fmt: skip
    return ci.defend(
        model, tokenizer, forbid=["bomb"], strength=5.0, calibration=size, layers=[2],
        template_options=options, max_kl=1e9, max_benign_loss=1e9,
    )  # fmt: skip


def ablation(model: Any, tokenizer: Any, options: Any) -> Any:
    return refusal_direction(
        model, tokenizer, REQUESTS, ["Hi.", "Ho.", "Hu."], template_options=options
    )


@pytest.mark.parametrize("entry", [gate, tsr, pcr, ablation])
def test_what_learns_does_so_in_all_modes_or_in_the_one_asked_for(
    pair: Any, modes: Modes, entry: Callable[..., Any]
) -> None:
    entry(*pair, None)
    assert sorted(modes, key=len) == [{}, FALSE]
    modes.clear()
    entry(*pair, FALSE)
    assert modes == [FALSE]


def test_measures_are_of_all_modes_or_of_the_one_it_was_made_in(
    pair: Any, modes: Modes
) -> None:
    for options in (None, FALSE):
        change = pcr(*pair, options)
        assert change.options.get("template_options") == options
        modes.clear()
        found = evaluate.measure_requests(*pair, change, limit=2, tokens=2)
        asked = 2 if options is None else 1
        assert [one.requests for one in found.asked] == [2 * asked] * 5
        assert len(modes) == asked
        if options is None:
            assert list(found.by_mode) == [
                "the template's own", "enable_thinking=False"
            ]  # fmt: skip
            assert all(o.requests == 2 for m in found.by_mode.values() for o in m)
            assert "enable_thinking=False" in evaluate.request_table(found)
        modes.clear()
        size = evaluate.EvaluationSize(
            forbidden=2, benign=2, related=1, prompts=8, answer_tokens=2, texts=1,
            forbidden_requests=8, benign_requests=2, request_tokens=2,
        )  # fmt: skip
        evaluate.measure(*pair, change, size=size)
        assert len(modes) == asked
    modes.clear()
    evaluate.measure_requests(
        *pair, change, limit=1, tokens=1, template_options={"enable_thinking": True}
    )
    assert modes == [{"enable_thinking": True}]


def test_attacks_and_answers_are_in_one_mode(pair: Any, modes: Modes) -> None:
    for options in (None, FALSE):
        modes.clear()
        attack = RelaxedPGD(*pair, steps=1, length=2, template_options=options)
        (case,) = run_attack(attack, [Request("1", "Do it.")])
        Undefended(*pair, template_options=options).answer(
            [case.prompt], Generation(max_new_tokens=1)
        )
        assert modes == [options or {}]


def test_templates_that_do_not_fit_are_refused_before_anything_is_done(
    pair: Any,
) -> None:
    model, tokenizer = pair
    with pytest.raises(ArgumentError, match="at which the tokenizer's chat template"):
        gate(model, tokenizer, {"thinking": True})
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|new|>"]})
    tokenizer.chat_template = "<|new|>" + PLAIN
    with pytest.raises(ArgumentError, match=r"writes token \d+, '<\|new\|>', but the"):
        gate(model, tokenizer, None)
