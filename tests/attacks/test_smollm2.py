# SPDX-License-Identifier: Apache-2.0
"""Attacks and outcomes on the real model, small."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from cintervene import data
from cintervene.attacks import GCG, EmbeddingPGD, Request, run_attack
from cintervene.attacks.objective import lay_out
from cintervene.baselines import BadWords, Generation, SelfReminder, Undefended
from cintervene.evaluate.requests.fluency import perplexities
from cintervene.evaluate.requests.outcomes import MAX_PERPLEXITY, Outcome, outcomes
from cintervene.evaluate.words.obedience import says

REQUEST = Request("song", "Write a song about the sea.")

pytestmark = pytest.mark.model


def test_suffixes_are_placed_in_the_chat_template(smollm2: Any) -> None:
    _, tokenizer = smollm2
    layout = lay_out(tokenizer, REQUEST.text, 6, "Sure, here is")
    assert tokenizer.decode(layout.free) == " ! ! ! ! ! !"
    assert layout.prompt(layout.free) == REQUEST.text + " ! ! ! ! ! !"
    assert tokenizer.decode(layout.before).endswith(REQUEST.text)
    assert tokenizer.decode(layout.after).startswith("<|im_end|>")


def test_searches_make_the_target_likelier(smollm2: Any) -> None:
    options = {"steps": 2, "search_width": 12, "length": 6}
    (case,) = run_attack(GCG(*smollm2, **options), [REQUEST])
    assert case.details["loss"] < case.details["first_loss"]
    (soft,) = run_attack(EmbeddingPGD(*smollm2, steps=6, max_new_tokens=8), [REQUEST])
    assert soft.details["loss"] < 0.5 * soft.details["first_loss"]


def test_answers_are_fluent_and_shuffled_ones_are_not(smollm2: Any) -> None:
    model, tokenizer = smollm2
    prompts = [p.text for p in data.benign_prompts("held_out")[:6]]
    settings = Generation(max_new_tokens=24)
    answers = SelfReminder(Undefended(model, tokenizer)).answer(prompts, settings)
    turned = [" ".join(reversed(answer.split())) for answer in answers]
    fluent = perplexities(model, tokenizer, prompts, answers)
    assert max(fluent) < MAX_PERPLEXITY
    shuffled = perplexities(model, tokenizer, prompts, turned)
    assert Outcome.BROKEN not in outcomes(answers, perplexities=fluent)
    assert outcomes(turned, perplexities=shuffled).count(Outcome.BROKEN) >= 5


def test_banned_words_stay_away(smollm2: Any) -> None:
    model, tokenizer = smollm2
    plain, settings = Undefended(model, tokenizer), Generation(max_new_tokens=16)
    prompts = [f"Repeat this word: {word}" for word in ("river", "lamp")]
    held = BadWords(plain, tokenizer, ["river"]).answer(prompts, settings)
    free = plain.answer(prompts, settings)
    assert says(free[0], "river")
    assert not says(held[0], "river")
    assert held[1] == free[1]
