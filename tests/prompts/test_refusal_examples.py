# SPDX-License-Identifier: Apache-2.0
"""Examples of one request: prefix, prompt, prefill, target."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from support.characters import Characters
from support.templates import QWEN3, make_tokenizer

from cintervene import data
from cintervene.prompts.refusal_examples import ExampleBuilder, refusal_tokens

TEMPLATES = data.jailbreak_templates("train")


def builder(*refusals: str) -> ExampleBuilder:
    return ExampleBuilder(Characters(), ["Say a.", "Do b."], refusals, TEMPLATES)


def test_a_prefill_belongs_to_the_answer_and_is_no_target() -> None:
    example = builder("No.").refusal("Say a.", "Sure", 0)
    text = Characters().decode
    assert text(example.ids[: example.target_start]) == "Say a.\nSure"
    assert text(example.ids[example.target_start :]) == " No."
    assert example.ids[example.opening] == Characters()("\n")["input_ids"][0]
    assert example.prefill_length == len("Sure")
    assert len(example.positions) == len(" No.") + 1  # And the end of the answer.


def test_an_example_without_a_target_looks_at_the_next_token() -> None:
    example = builder().retain("Say a.")
    assert list(example.positions) == [example.opening] == [len("Say a.\n") - 1]
    assert example.target_sets == ()
    longer = builder().retain("Say a.", answer=[1, 2, 3])
    assert list(longer.positions) == [6, 7, 8]


def test_prefills_answers_and_templates_take_turns() -> None:
    made, text = builder("No."), Characters().decode
    answer = Characters()("Of course, here it is")["input_ids"]
    groups = [list(made.refusals(turn, "Say a.", answer)) for turn in range(8)]
    assert [len(group) for group in groups] == [2, 3, 2, 2] * 2
    for turn, group in enumerate(groups):
        before = text(group[1].ids[: group[1].target_start])
        if turn % 2:
            prefill = "Of course, here it is"[: 2 + turn // 2]
        else:
            prefill = made.prefills[turn % len(made.prefills)]
        assert before == "Say a.\n" + prefill
    assert [len(list(made.borderline(turn, "a"))) for turn in range(4)] == [2, 1, 2, 1]


def test_refusals_are_texts_behind_a_gap_or_tokens_as_they_are() -> None:
    assert refusal_tokens(Characters(), "No", " ") == Characters()(" No")["input_ids"]
    assert refusal_tokens(Characters(), (3, 5), " ") == [3, 5]


def test_other_ways_begin_the_answer_with_a_think_block() -> None:
    made, text = builder("No."), Characters().decode
    for way, begun in (
        (1, "<think>\n"),
        (2, "<think>\n\n</think>\n\n"),
        (3, "<think>\n"),
    ):
        refusal = made.refusal("Say a.", "", 0, way=way)
        assert text(refusal.ids[: refusal.target_start]) == "Say a.\n" + begun
        assert text(refusal.ids[refusal.target_start :]) == "No."
        # What begins the answer is not where it is about to begin.
        assert refusal.prefill_length == len(begun)
        assert refusal.opening == made.refusal("Say a.", "", 0).opening
        assert text(made.retain("Say a.", way=way).ids) == "Say a.\n" + begun
    both = made.refusal("Say a.", "Sure", 0, way=1)
    assert text(both.ids[: both.target_start]) == "Say a.\n<think>\nSure"


def test_templates_with_thoughts_give_every_request_in_another_way_too() -> None:
    tokenizer = make_tokenizer(QWEN3)
    made = ExampleBuilder(tokenizer, ["Say a."], ["No."], TEMPLATES)
    said = [tokenizer.decode(one.ids) for one in made.refusals(0, "Say a.", ())]
    assert len(said) == 3
    assert sum("<think>" in one for one in said) >= 1
