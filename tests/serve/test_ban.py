# SPDX-License-Identifier: Apache-2.0
"""Words and patterns that cannot be written, with arrays and tensors."""

from __future__ import annotations

import re

import numpy as np
import pytest

from cintervene.errors import ArgumentError
from cintervene.serve import Vocabulary, WordBan

PIECES = [
    "", "k", "i", "ll", " k", "ill", " kill", "Kill", " the", " man", "er", " ", "M",
    "AN", "1", "2", "-", "\n",
]  # fmt: skip
VOCABULARY = Vocabulary({token: text.encode() for token, text in enumerate(PIECES)})


def banned(ban, *pieces):
    return {
        PIECES[token] for token in ban.banned([PIECES.index(one) for one in pieces])
    }


def test_words_phrases_and_patterns_are_banned_however_they_are_cut():
    ban = WordBan(VOCABULARY, ["kill", "the man"], [r"\d-\d", "(?i)killer"])
    assert banned(ban) == {" kill", "Kill"}
    assert banned(ban, " k") == {" kill", "ill"}
    assert banned(ban, " k", "i") == {" kill", "ll"}
    assert banned(ban, " the") == {" kill", " man"}
    assert banned(ban, " the", " ") == {" kill", "Kill", " man"}
    assert banned(ban, " the", " ", "M") == {" kill", "AN"}
    assert banned(ban, "1", "-") == {" kill", "Kill", "1", "2"}
    assert banned(ban, "k", "ill") == {" kill", "er"}


def test_special_tokens_part_texts():
    ban = WordBan(VOCABULARY, ["kill"], [r"\d-\d"])
    assert banned(ban, " k", "") == {" kill", "Kill"}
    assert "2" not in banned(ban, "1", "-", "")
    assert "2" in banned(ban, "", "1", "-")
    assert ban.banned([-1, 4]).tolist() == ban.banned([4]).tolist()


def test_what_a_prompt_says_bans_nothing_behind_it():
    ban = WordBan(VOCABULARY, ["kill"], [r"\bman\b"])
    assert banned(ban, " kill", " man") == {" kill", " man"}
    assert banned(ban, " man", " ") == {" kill", "Kill", " man"}


def test_a_long_text_is_read_once_and_from_anywhere():
    ban = WordBan(VOCABULARY, [], [r"k(?:ill)*-"])
    text = [PIECES.index(one) for one in ["k", *["ill"] * 50]]
    for end in range(1, len(text)):
        assert ban.banned(text[:end]).tolist() == [PIECES.index("-")]
    fresh = WordBan(VOCABULARY, [], [r"k(?:ill)*-"])
    assert fresh.banned(text).tolist() == ban.banned(text).tolist()


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_it_processes_logits_as_servers_hand_them_over(library):
    ban = WordBan(VOCABULARY, ["kill"])
    tokens = np.array([[8, 4], [8, 9]], dtype=np.intc)
    scores = np.zeros((2, len(PIECES)), dtype=np.single)
    if library == "torch":
        torch = pytest.importorskip("torch")
        tokens, scores = torch.from_numpy(tokens).long(), torch.from_numpy(scores)
    found = ban(tokens, scores)
    assert type(found) is type(scores)
    assert found.dtype == scores.dtype
    assert not np.isinf(np.asarray(scores)).any()
    rows = [set(np.flatnonzero(np.isneginf(row)).tolist()) for row in np.asarray(found)]
    assert rows == [{5, 6}, {6}]
    single = ban(tokens[0], scores[0])
    np.testing.assert_array_equal(np.asarray(single), np.asarray(found)[0])


def test_a_row_in_which_nothing_else_is_left_stays():
    ban = WordBan(VOCABULARY, ["kill"])
    scores = np.full(len(PIECES), -np.inf, np.float32)
    scores[6] = 1.0
    assert ban(np.array([8]), scores)[6] == 1.0
    scores[8] = 0.0
    assert ban(np.array([8]), scores)[6] == -np.inf


def test_a_model_may_have_fewer_logits_than_tokens():
    ban = WordBan(VOCABULARY, ["kill"])
    assert np.flatnonzero(ban(np.array([8]), np.zeros(7)) == -np.inf).tolist() == [6]


class Llama:
    """What is asked of llama-cpp-python's class of that name."""

    def n_vocab(self):
        return len(PIECES)

    def detokenize(self, tokens):
        return b"".join(PIECES[token].encode() for token in tokens)


def test_a_llama_is_its_own_tokenizer():
    ban = WordBan(Llama(), ["kill"])
    assert banned(ban, " k") == {" kill", "ill"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "words: got none"),
        ({"words": "kill"}, r"words: got the single 'kill'.*Write \['kill'\]"),
        ({"patterns": "kill"}, "patterns: got the single"),
        ({"patterns": re.compile("kill")}, "patterns: got the single"),
        ({"words": [" "]}, "words: got ' '"),
        ({"words": ["kill", "love"]}, "tokenizer: .* no way of writing 'love'"),
        ({"patterns": ["a("]}, "patterns: .* no regular expression"),
    ],
)
def test_errors_name_the_argument(options, message):
    with pytest.raises(ArgumentError, match=message):
        WordBan(VOCABULARY, **options)


def test_what_is_no_tokenizer_is_named():
    with pytest.raises(ArgumentError, match="tokenizer: got int"):
        WordBan(3, ["kill"])
