# SPDX-License-Identifier: Apache-2.0
"""Patterns followed through tokens, beside `re` on the whole text."""

from __future__ import annotations

import re
import warnings

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cintervene.errors import ArgumentError
from cintervene.words.patterns.automaton import PatternAutomaton
from cintervene.words.patterns.follower import PatternFollower
from cintervene.words.vocabulary import Vocabulary

TEXTS = [
    "a", "b", "ab", "ba", "A", "B", " ", " a", "a b", "1", "12", "\n", "-", "é", "É",
    "_", "aab", " b-", "“", "ss", "S", "日本", "b\na", "k", "\u212a",
]  # fmt: skip
# Every pair of letters of words and others, to stand between.
BETWEEN = ["a", "a a", "aa", "  ", " -"]
VOCABULARY = Vocabulary({token: text.encode() for token, text in enumerate(TEXTS)})

atoms = st.sampled_from(
    [
        "a", "b", "A", "1", " ", "é", "s", "日", ".", r"\d", r"\w", r"\s", r"\W", r"\D",
        r"\b", r"\B", "[ab]", "[^a]", "[a-c1]", r"[\d-]", r"[^\w ]", r"\x61", r"\u00e9",
        r"\-", r"\n", "k",
    ]
)  # fmt: skip
counts = st.sampled_from(["*", "+", "?", "{2}", "{1,2}", "{,2}", "{2,}", "*?", "+?"])


def larger(inner):
    parts = st.lists(inner, min_size=1, max_size=3)
    return st.one_of(
        parts.map("".join),
        parts.map("|".join).map("(?:{})".format),
        st.tuples(inner, counts).map(lambda one: f"(?:{one[0]}){one[1]}"),
        inner.map("({})".format),
    )


patterns = st.recursive(atoms, larger, max_leaves=6)


def compiled(pattern):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return re.compile(pattern)


@given(
    pattern=patterns,
    flags=st.sampled_from(["", "(?i)", "(?s)", "(?is)"]),
    chosen=st.lists(st.integers(0, len(TEXTS) - 1), max_size=6),
)
@settings(max_examples=400)
def test_tokens_that_complete_a_match_are_those_that_re_finds(pattern, flags, chosen):
    pattern = compiled(flags + pattern)
    # What matches the empty text somewhere is refused.
    assume(all(found[0] for text in BETWEEN for found in pattern.finditer(text)))
    follower = PatternFollower(VOCABULARY, [PatternAutomaton(pattern)])
    place, text = follower.begin, ""
    for token in [*chosen, None]:
        expected = [
            one for one, more in enumerate(TEXTS) if pattern.search(text + more)
        ]
        assert follower.completing(place).tolist() == expected
        if token is None or token in expected:
            break
        place, text = follower.after(place, TEXTS[token].encode()), text + TEXTS[token]


def follow(pattern, pieces, vocabulary):
    follower = PatternFollower(vocabulary, [PatternAutomaton(pattern)])
    place = follower.begin
    for piece in pieces:
        place = follower.after(place, piece)
    return follower.completing(place).tolist()


def test_characters_may_be_cut_between_tokens():
    whole = "né".encode()
    parts = Vocabulary({0: whole[:2], 1: whole[2:], 2: b"n", 3: b"e", 4: b"\xc3"})
    assert follow("né", [], parts) == []
    assert follow("né", [whole[:2]], parts) == [1]
    assert follow("né", [b"n", b"\xc3"], parts) == [1]
    assert follow("né", [b"\xc3"], parts) == []
    # A character that is never completed is one that cannot be read.
    assert follow("n.e", [b"n", b"\xc3"], parts) == [3]
    assert follow("(?i)NÉ", [b"n", b"\xc3"], parts) == [1]


def test_what_was_said_is_not_held_against_what_follows():
    vocabulary = Vocabulary({0: b"kill", 1: b" ", 2: b" kill", 3: b"s"})
    said = follow(r"\bkill\b", [b"kill"], vocabulary)
    assert said == [2]
    assert follow(r"\bkill\b", [b"kill", b" "], vocabulary) == [0, 2]
    assert follow("kill", [b"a kill in", b"k"], vocabulary) == [0, 2]


def test_several_patterns_are_followed_at_once():
    vocabulary = Vocabulary({0: b"a", 1: b"b", 2: b"c"})
    automata = [PatternAutomaton("ab"), PatternAutomaton("ac"), PatternAutomaton("bb")]
    follower = PatternFollower(vocabulary, automata)
    assert follower.completing(follower.begin).tolist() == []
    assert follower.completing(follower.after(follower.begin, b"a")).tolist() == [1, 2]
    assert follower.completing(follower.after(follower.begin, b"b")).tolist() == [1]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("a(", "no regular expression"),
        ("^a", r"anchor \^"),
        ("a$", "anchor"),
        (r"\Aa", r"\\A"),
        (r"(a)\1", r"\\1"),
        ("(?=a)b", r"group \(\?=a"),
        ("(?<!a)b", "group"),
        ("(?#x)a", "group"),
        (re.compile("a", re.ASCII), "flags"),
        (re.compile(b"a"), "bytes"),
        (3, "no regular expression"),
        ("a*", "empty text"),
        (r"\b", "empty text"),
        ("(?:)|a", "empty text"),
        ("a{6000}", "too many states"),
        ("a{" + "9" * 5000 + "}", "no regular expression"),
        ("(" * 99 + "a" + ")" * 99, "groups in each other"),
        ("(" * 300 + "a" + ")" * 300, "groups in each other"),
        ("(a|b)*a" + "(a|b)" * 12, "too many states"),
    ],
)
def test_what_cannot_be_followed_is_refused_by_name(pattern, message):
    with pytest.raises(ArgumentError, match=r"patterns: .*" + message):
        PatternAutomaton(pattern)


@pytest.mark.parametrize("nothing", ["()", "(?:a{0})", "(()())"])
def test_nothing_however_often_is_nothing(nothing):
    odd = PatternAutomaton(f"a{nothing}{{4000000000}}b")
    found = [odd.ends[odd.after(odd.rest[False], text)] for text in ("ab", "a-b")]
    assert found == [True, False]


def test_possessive_repetitions_are_refused():
    with pytest.raises(ArgumentError, match="possessive"):
        PatternAutomaton("a++b")
