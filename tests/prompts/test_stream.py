# SPDX-License-Identifier: Apache-2.0
"""Answers token by token: those of `generate`, drawn ones, and a changed model's."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from support.interventions import random_intervention
from support.speaking_models import make_speaking_model

from cintervene.intervention.beside import Beside
from cintervene.prompts.chat import Sampler, generate, render, stream

PROMPTS = ["What is a bee?", "Sing!"]


def answers(model: Any, tokenizer: Any, **options: Any) -> list[list[int]]:
    prompts = [render(tokenizer, prompt) for prompt in PROMPTS]
    return [list(stream(model, tokenizer, one, 12, **options)) for one in prompts]


def test_greedy_ones_are_those_of_generate() -> None:
    model, tokenizer = make_speaking_model()
    prompts = [render(tokenizer, prompt) for prompt in PROMPTS]
    whole = [generate(model, tokenizer, [one], 12)[0] for one in prompts]
    assert answers(model, tokenizer) == whole
    # Whatever ends an answer is no part of it.
    tokenizer.eos_token_id = whole[0][3]
    assert answers(model, tokenizer)[0] == whole[0][: whole[0].index(whole[0][3])]


def test_both_models_answer_by_turns() -> None:
    model, tokenizer = make_speaking_model()
    intervention = random_intervention(model, [1, 2])
    before = answers(model, tokenizer)
    with intervention.applied(model):
        after = answers(model, tokenizer)
    assert before != after
    beside = Beside(model, intervention)
    prompt = render(tokenizer, PROMPTS[0])
    sides = [
        stream(model, tokenizer, prompt, 12),
        stream(model, tokenizer, prompt, 12, forward=beside),
    ]
    turns = list(zip(*sides, strict=True))
    assert [list(side) for side in zip(*turns, strict=True)] == [before[0], after[0]]


def test_drawn_ones_are_the_same_for_the_same_seed() -> None:
    model, tokenizer = make_speaking_model()
    global_state = torch.random.get_rng_state()
    once, again, other = (
        answers(model, tokenizer, choose=Sampler(1.0, seed)) for seed in (1, 1, 2)
    )
    assert once == again != other
    assert torch.equal(torch.random.get_rng_state(), global_state)
    cold = answers(model, tokenizer, choose=Sampler(1e-6, 1))
    assert cold == answers(model, tokenizer)


def test_tokens_are_drawn_by_their_probabilities() -> None:
    odds = torch.tensor([[0.5, 0.3, 0.2]]).expand(4000, 3)
    drawn = Sampler(2.0, 0)(2.0 * odds.log())
    share = torch.bincount(drawn, minlength=3) / 4000
    assert torch.allclose(share, odds[0], atol=0.03)
