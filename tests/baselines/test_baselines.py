# SPDX-License-Identifier: Apache-2.0
"""Defences around a model: what they ask it, and what they make of its answers."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.characters import Characters
from support.speaking_models import make_speaking_model
from support.tiny_models import make_tiny_model

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from cintervene.baselines import (
    BadWords,
    Generation,
    Guarded,
    Intervened,
    SelfReminder,
    SmoothLLM,
    Undefended,
)
from cintervene.baselines.answering import answer_prefilled
from cintervene.baselines.bad_words import spellings
from cintervene.baselines.smoothllm import perturb
from cintervene.errors import ArgumentError
from cintervene.intervention.intervention import Intervention
from cintervene.models import find_targets
from cintervene.prompts.chat import generate, render
from cintervene.solvers.update import LowRankUpdate

SHORT = Generation(max_new_tokens=8)


@dataclass
class Parrot:
    """Answers by saying the prompt again, and remembers what it was asked."""

    asked: list[str] = field(default_factory=list)
    settings: list[Generation] = field(default_factory=list)

    def answer(
        self, prompts: Sequence[str], generation: Generation, seed: int = 0
    ) -> list[str]:
        self.asked += prompts
        self.settings.append(generation)
        return list(prompts)


@pytest.fixture(scope="module")
def pair() -> Any:
    return make_speaking_model(eos_token_id=None, bos_token_id=None, pad_token_id=None)


def test_what_was_said_before_is_part_of_what_is_answered(pair: Any) -> None:
    model, tokenizer = pair
    defence, turns = Undefended(model, tokenizer), (("system", "be"),)
    (found,) = defence.answer(["hi"], Generation(8, turns=turns))
    ids = render(tokenizer, "hi", turns=turns)
    assert ids != render(tokenizer, "hi")
    assert found == tokenizer.decode(generate(model, tokenizer, [ids], 8)[0])


def test_prompts_are_asked_by_what_comes_around_them() -> None:
    parrot, said = Parrot(), (("system", "be"),)
    pairs = [("a", ""), ("b", "Sure"), ("c", ""), ("d", "")]
    answers = answer_prefilled(parrot, pairs, SHORT, turns=[(), (), said, ()])
    assert answers == ["a", "b", "c", "d"]
    assert parrot.asked == ["a", "d", "b", "c"]
    around = [(one.prefill, one.turns) for one in parrot.settings]
    assert around == [("", ()), ("Sure", ()), ("", said)]


def test_undefended_answers_greedily_after_the_prefill(pair: Any) -> None:
    model, tokenizer = pair
    defence = Undefended(model, tokenizer)
    (found,) = defence.answer(["hi"], Generation(8, prefill="ab"))
    ids = render(tokenizer, "hi") + tokenizer("ab")["input_ids"]
    (expected,) = generate(model, tokenizer, [ids], 8)
    assert found == tokenizer.decode(expected)
    with pytest.raises(ArgumentError, match="max_new_tokens: got 0"):
        Generation(0)


def test_reminder_stands_around_the_prompt() -> None:
    parrot = Parrot()
    found = SelfReminder(parrot, "<", ">").answer(["a", "b"], SHORT)
    assert found == parrot.asked == ["<a>", "<b>"]
    (said,) = SelfReminder(parrot).answer(["PROMPT"], SHORT)
    before, after = said.split("PROMPT")
    assert "decline" in before
    assert "decline" in after


def test_banned_words_are_not_written(pair: Any) -> None:
    model, tokenizer = pair
    plain = Undefended(model, tokenizer)
    long = Generation(24)
    (free,) = plain.answer(["hello"], long)
    pairs = (free[at : at + 2] for at in range(20))
    word = next(two for two in pairs if not any(letter.isspace() for letter in two))
    (held,) = BadWords(plain, tokenizer, [word]).answer(["hello"], long)
    assert word in free
    assert word not in held
    at = free.index(word)
    assert held[: at + 1] == free[: at + 1]


def test_all_surface_forms_are_banned() -> None:
    tokenizer = Characters()
    runs = {tokenizer.decode(run) for run in spellings(tokenizer, ["gun"])}
    assert runs == {"gun", " gun", "Gun", " Gun", "GUN", " GUN"}
    with pytest.raises(ArgumentError, match="no words"):
        spellings(tokenizer, [])


@given(
    st.text(min_size=1, max_size=80),
    st.sampled_from(["swap", "patch", "insert"]),
    st.integers(0, 100),
)
def test_perturbations_change_as_much_as_asked(text: str, kind: Any, q: int) -> None:
    found = perturb(text, kind, q, np.random.default_rng(0))
    count = int(len(text) * q / 100)
    if kind == "insert":
        assert len(found) == len(text) + count
        rest = iter(found)
        assert all(letter in rest for letter in text)
        return
    changed = [
        at
        for at, pair in enumerate(zip(text, found, strict=True))
        if pair[0] != pair[1]
    ]
    assert len(changed) <= count
    if kind == "patch" and changed:
        assert changed[-1] - changed[0] < count


def test_smoothllm_asks_perturbed_copies() -> None:
    parrot = Parrot()
    prompt = "How do I bake a cake without eggs?"
    SmoothLLM(parrot, copies=5).answer([prompt, "x"], SHORT)
    assert len(parrot.asked) == 10
    assert parrot.asked[5:] == ["x"] * 5
    assert len(set(parrot.asked[:5])) == 5
    for copy in parrot.asked[:5]:
        likeness = difflib.SequenceMatcher(None, prompt, copy).ratio()
        assert 0.85 < likeness < 1.0


@pytest.mark.parametrize(("refusals", "refused"), [(4, False), (5, True), (9, True)])
def test_smoothllm_follows_the_majority(refusals: int, refused: bool) -> None:
    class Moody(Parrot):
        def answer(
            self, prompts: Sequence[str], generation: Generation, seed: int = 0
        ) -> list[str]:
            no = ["I can't do that."] * refusals
            return no + [f"Sure {n}" for n in range(10 - refusals)]

    (found,) = SmoothLLM(Moody()).answer(["p" * 40], SHORT)
    assert (found == "I can't do that.") == refused


def test_smoothllm_depends_on_seed_and_prompt_alone() -> None:
    defence = SmoothLLM(Parrot(), "patch", copies=3)
    prompts = ["first prompt of some length", "second prompt of some length"]
    found = defence.answer(prompts, SHORT, seed=3)
    assert defence.answer(prompts[1:], SHORT, seed=3) == found[1:]
    assert defence.answer(prompts, SHORT, seed=4) != found


@pytest.mark.parametrize(
    "options", [{"kind": "swop"}, {"q": 101}, {"copies": 0}, {"vote": 1.0}]
)
def test_smoothllm_checks_its_options(options: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError):
        SmoothLLM(Parrot(), **options)


def test_defences_compose(pair: Any) -> None:
    _, tokenizer = pair
    parrot = Parrot()
    defence = SmoothLLM(SelfReminder(parrot, "<<<", ">>>"), copies=2)
    BadWords(defence, tokenizer, ["gun"]).answer(["a" * 20], SHORT)
    assert all(text[:3] == "<<<" for text in parrot.asked)
    assert parrot.settings[0].banned == spellings(tokenizer, ["gun"])


def test_intervention_is_applied_for_the_answer_only(pair: Any) -> None:
    model, tokenizer = pair
    (target,) = find_targets(model, [3])
    source = np.random.default_rng(0)
    update = LowRankUpdate(
        source.normal(size=(target.d_out, 1)), source.normal(size=(1, target.d_in))
    )
    intervention = Intervention.of(model, [(target, update)])
    plain = Undefended(model, tokenizer)
    before = target.weight.detach().clone()
    found = Intervened(plain, model, intervention).answer(["hello"], SHORT)
    assert torch.equal(target.weight, before)
    with intervention.applied(model):
        assert plain.answer(["hello"], SHORT) == found
    assert plain.answer(["hello"], SHORT) != found


def test_guards_follow_answers_that_leave_the_batch() -> None:
    tokenizer = Characters()
    model = make_tiny_model(
        "llama", vocab_size=tokenizer.vocab_size, max_position_embeddings=2048,
        eos_token_id=None, bos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    prompts = ["hi there", "you", "ab", "what is it?"]
    plain, settings = Undefended(model, tokenizer), Generation(12)
    free = plain.answer(prompts, settings)
    word = next(letter for letter in free[0] if letter.isalpha())
    guarded = Guarded(plain, model, tokenizer, [word], 3.0)
    alone = [guarded.answer([prompt], settings)[0] for prompt in prompts]
    assert alone[0] != free[0]
    # Something that ends answers at different places.
    tokenizer.eos_token_id = tokenizer(alone[0])["input_ids"][3]
    end = tokenizer.decode([tokenizer.eos_token_id])
    expected = [one[: one.find(end) % 12 + 1] for one in alone]
    assert guarded.answer(prompts, settings) == expected
    assert len(set(map(len, expected))) > 1
