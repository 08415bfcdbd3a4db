# SPDX-License-Identifier: Apache-2.0
"""Words as the tokens that they may begin with, and those that are none."""

from __future__ import annotations

from typing import Any

import pytest
from support.letters import Letters

from cintervene.errors import ArgumentError

pytest.importorskip("torch")
pytest.importorskip("transformers")

from cintervene.prompts.spelling import (
    check_spellable,
    distinctive,
    first_tokens,
    spell,
    surface_forms,
)


def test_surface_forms_are_distinct_and_lower_case_first() -> None:
    assert surface_forms("bomb") == ("bomb", "Bomb", "BOMB")
    assert surface_forms("McGuffin") == ("mcguffin", "Mcguffin", "MCGUFFIN", "McGuffin")
    assert surface_forms("x") == ("x", "X")


def test_spell_splits_where_the_word_begins() -> None:
    context, tokens = spell(Letters(), "say: ", "hi")
    assert context == [ord(c) for c in "say:"]
    assert tokens == [1000 + ord("h"), ord("i")]


def test_spell_keeps_a_token_for_a_word_that_repeats_the_context() -> None:
    context, tokens = spell(Letters(), "aa", "")
    assert context == [ord("a")]
    assert tokens == [ord("a")]


def test_white_space_is_not_part_of_a_word() -> None:
    context, tokens = spell(Letters(), "", "\nhi")
    assert context == [ord("\n")]
    assert tokens == [ord("h"), ord("i")]


def test_first_tokens_cover_forms_with_and_without_space() -> None:
    found = first_tokens(Letters(), "say", "hi")
    assert set(found) == {ord("h"), ord("H"), 1000 + ord("h"), 1000 + ord("H")}
    after_space = first_tokens(Letters(), "say ", "hi")
    assert set(after_space) == {1000 + ord("h"), 1000 + ord("H")}


def test_short_pieces_count_little_and_whole_words_fully() -> None:
    letters = Letters()
    assert distinctive(letters, ord("x"), "x") == 1.0
    assert distinctive(letters, ord("x"), "xylophone") == pytest.approx(1 / 16)


@pytest.mark.parametrize("words", [[], ["ok", " "], ["ok", 3]])
def test_words_that_are_none_are_refused(words: list[Any]) -> None:
    with pytest.raises(ArgumentError, match="forbid"):
        check_spellable(Letters(), words)


def test_words_that_do_not_survive_the_tokenizer_are_refused() -> None:
    class Deaf(Letters):
        def decode(self, ids: list[int]) -> str:
            return super().decode(ids).replace("ø", "?")

    with pytest.raises(ArgumentError, match="cannot spell 'bøm'"):
        check_spellable(Deaf(), ["bom", "bøm"])
