# SPDX-License-Identifier: Apache-2.0
"""Words as the tokens that they may begin with, and those that are none."""

from __future__ import annotations

from typing import Any

import pytest
from support.letters import Letters

from cintervene.errors import ArgumentError

pytest.importorskip("torch")
pytest.importorskip("transformers")

from transformers import AddedToken

from cintervene.prompts.spelling import (
    before_last_part,
    check_spellable,
    distinctive,
    first_tokens,
    spell,
    surface_forms,
    words_to_forbid,
)


class Marked(Letters):
    """Letters, and tokens that were added: two of the template, and a word."""

    chat_template = "{{ 'quokka<|end|><think>' }}"

    def __init__(self) -> None:
        added = ("<|end|>", "<think>", "quokka")
        self.added_tokens_decoder = {
            5000 + at: AddedToken(text, special=at == 0)
            for at, text in enumerate(added)
        }

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, Any]:
        for token, added in self.added_tokens_decoder.items():
            text = text.replace(str(added), chr(token))
        return super().__call__(text)

    def decode(self, ids: list[int]) -> str:
        return "".join(
            str(self.added_tokens_decoder.get(i, "")) or super(Marked, self).decode([i])
            for i in ids
        )


def test_surface_forms_are_distinct_and_lower_case_first() -> None:
    assert surface_forms("bomb") == ("bomb", "Bomb", "BOMB")
    assert surface_forms("McGuffin") == ("mcguffin", "Mcguffin", "MCGUFFIN", "McGuffin")
    assert surface_forms("x") == ("x", "X")


def test_case_changes_in_any_script() -> None:
    assert surface_forms("ǆep") == ("ǆep", "ǅep", "ǅEP".replace("ǅ", "Ǆ"))
    assert surface_forms("straße") == ("straße", "Straße", "STRASSE")
    assert surface_forms("cafe\u0301")[0] == "caf\u00e9"


def test_words_are_alike_however_they_are_typed() -> None:
    typed = ["cafe\u0301", " Caf\u00e9 ", "car \t\u00a0bomb", "\u200fCAR BOMB\u200f"]
    assert words_to_forbid(Letters(), typed) == ["caf\u00e9", "car bomb"]


@pytest.mark.parametrize("hidden", ["bo\u200bmb", "bo\u00admb", "bo\x07mb", "\u200d"])
def test_words_that_cannot_be_seen_are_refused(hidden: str) -> None:
    with pytest.raises(ArgumentError, match=r"^forbid: .* (remove|Remove) ") as caught:
        words_to_forbid(Letters(), [hidden])
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("word", ["<|end|>", "<|END|>", "a<|end|>b", "<think>"])
def test_tokens_of_the_template_are_no_words(word: str) -> None:
    with pytest.raises(ArgumentError, match=r"holds '<.*>', a special token"):
        words_to_forbid(Marked(), [word])


def test_words_that_were_added_to_the_tokenizer_are_words() -> None:
    assert words_to_forbid(Marked(), ["quokka"]) == ["quokka"]


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


@pytest.mark.parametrize(
    ("text", "phrase", "last"),
    [
        ("shed light on", "shed light on", " on"),
        ("SHED LIGHT ON", "shed light on", " ON"),
        # What comes before it is in the same token, or in one before.
        ('"Delve into', "delve into", " into"),
        ("a a a", "a a a", " a"),
        ("tapestry", "tapestry", "tapestry"),
    ],
)
def test_where_the_last_part_of_a_phrase_begins(
    text: str, phrase: str, last: str
) -> None:
    tokens = Letters()(text)["input_ids"]
    count = before_last_part(Letters(), tokens, phrase)
    assert Letters().decode(tokens[count:]) == last


def test_a_token_that_two_parts_share_is_no_last_part() -> None:
    class Joined(Letters):
        def decode(self, ids: list[int]) -> str:
            return "".join("game o" if i == 1 else super().decode([i]) for i in ids)

    assert before_last_part(Joined(), [1, ord("n")], "game on") == 0
