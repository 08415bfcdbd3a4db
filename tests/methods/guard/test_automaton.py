# SPDX-License-Identifier: Apache-2.0
"""Which next tokens would say a word, however the word is cut into tokens."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch")
pytest.importorskip("transformers")

from cintervene.data import normal_word
from cintervene.errors import ArgumentError
from cintervene.methods.guard.automaton import WordAutomaton

PIECES = [
    "k", "i", "l", "s", "e", "r", "K", "I", "L", "S", "E", "R", "ill", "kill", "Kill",
    "ki", "ll", "Ġ", "Ġk", "Ġkill", "Ġs", "Ġki", "Ġkiller", "er", '"', '"k', "-",
    "(kill", "1",
]  # fmt: skip


class Subwords:
    """Greedy longest pieces; a space is written as the usual tokenizers write it."""

    unk_token_id = None

    def __init__(self) -> None:
        self.ids = {piece: token for token, piece in enumerate(PIECES)}

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, Any]:
        left, found = text.replace(" ", "Ġ"), []
        while left:
            fitting = [piece for piece in PIECES if left.startswith(piece)]
            best = max(fitting, key=len, default="")
            left = left[max(len(best), 1) :]
            found += [self.ids[best]] if best else []
        return {"input_ids": found}

    def decode(self, ids: Any) -> str:
        return "".join(PIECES[token] for token in ids).replace("Ġ", " ")

    def get_vocab(self) -> dict[str, int]:
        return self.ids


TOKENIZER = Subwords()
KILL = WordAutomaton(TOKENIZER, ["kill"])


def weights(automaton: WordAutomaton, pieces: list[str]) -> dict[str, float]:
    found = automaton.weights([TOKENIZER.ids[piece] for piece in pieces])
    pairs = zip(automaton.tokens, found, strict=True)
    return {PIECES[token]: weight for token, weight in pairs if weight}


def test_every_token_that_completes_the_word_is_forbidden() -> None:
    assert weights(KILL, ["Ġ"]) == {"kill": 1, "Kill": 1, "Ġkill": 1, "(kill": 1}
    assert weights(KILL, ["Ġk"]).items() >= {"ill": 1.0}.items()
    assert weights(KILL, ["k", "i", "l"]).items() >= {"l": 1.0, "L": 1.0}.items()
    assert weights(KILL, ['"k', "I"]).items() >= {"ll": 1.0}.items()


def test_a_word_inside_another_is_free() -> None:
    assert set(weights(KILL, ["Ġs"])) == {"Ġkill", "(kill"}
    assert "ll" not in weights(KILL, ["s", "ki"])


def test_usual_inner_pieces_count_by_the_letters_said() -> None:
    killer = WordAutomaton(TOKENIZER, ["kills"])
    # "kill" alone could be another word; "s" completes this one.
    assert weights(killer, []) == {}
    assert weights(killer, ["Ġkill"]) == {"s": 1.0, "S": 1.0}
    skier = WordAutomaton(TOKENIZER, ["skier"])
    assert weights(skier, ["Ġs"])["ki"] == (3 / 4) ** 2


@given(st.lists(st.integers(0, len(PIECES) - 1), max_size=9))
def test_whole_tokens_agree_with_the_text(history: list[int]) -> None:
    found = dict(zip(KILL.tokens, KILL.weights(history), strict=True))
    for token in range(len(PIECES)):
        text = TOKENIZER.decode([*history, token])
        said = re.search(r"(?<![^\W_])kill$", text, re.IGNORECASE) is not None
        # It may also have been completed by a token before; only then is this one free.
        assert (found.get(token, 0.0) == 1.0) == said


def byte_level(*pieces: str) -> Any:
    """A tokenizer of transformers with all bytes and some longer pieces."""
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    level = tokenizers.pre_tokenizers.ByteLevel
    letters = sorted(level.alphabet())
    written = {
        piece: level(add_prefix_space=False, use_regex=False).pre_tokenize_str(piece)[
            0
        ][0]
        for piece in pieces
    }
    vocabulary = {letter: at for at, letter in enumerate([*letters, *written.values()])}
    merges = [
        (whole[:end], whole[end])
        for whole in written.values()
        for end in range(1, len(whole))
    ]
    for first, second in merges:
        vocabulary.setdefault(first + second, len(vocabulary))
    model = tokenizers.models.BPE(vocabulary, merges)
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = level(add_prefix_space=False, use_regex=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend)


def limited(tokenizer: Any, word: str, text: str) -> bool:
    """Whether some token on the way through a text is forbidden."""
    automaton = WordAutomaton(tokenizer, [word])
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    return any(
        token in automaton.completing(tokens[:at]) for at, token in enumerate(tokens)
    )


BYTES = byte_level(
    "是炸", "弾で", " bomb", "bombs", "ระเบ", "炸弹", "这是炸弹", '"bomb"'
)


@pytest.mark.parametrize(
    ("word", "text", "says"),
    [
        # Scripts without spaces between words: anywhere.
        ("炸弹", "这是炸弹。", True),
        ("炸弹", "他说炸弹在车里", True),
        ("炸弹", "是炸弹", True),
        ("炸弹", "炸鸡", False),
        ("爆弾", "これは爆弾です", True),
        ("ระเบิด", "นี่คือระเบิด", True),
        ("ລະເບີດ", "ນີ້ລະເບີດ", True),
        # Others: not within a word, but beside another script.
        ("ass", "a class", False),
        ("ass", "the ass", True),
        ("bomb", "这是bomb", True),
        ("bomb", "firebomb", False),
        ("bomb", 'a "bomb"', True),
        ("bomb", "bombs", False),
        ("bomb", "_bomb", True),
        ("폭탄", "이 폭탄을", True),
        ("폭탄", "시한폭탄", False),
        ("бомба", "та БОМБА", True),
        ("бомба", "Бомба", True),
        # One word, however it is composed and cased, and in any white space.
        ("café", "the cafe\u0301", True),
        ("cafe\u0301", "the CAFÉ", True),
        ("straße", "STRASSE", True),
        ("λόγος", "ΛΌΓΟΣ", True),
        ("dirty bomb", "a dirty\n bomb", True),
        ("dirty bomb", "a dirty\u00a0bomb", True),
        ("dirty bomb", "a dirtybomb", False),
    ],
)
def test_words_in_their_scripts(word: str, text: str, says: bool) -> None:
    assert limited(BYTES, normal_word("word", word), text) == says


def test_a_word_is_completed_by_the_last_byte_of_its_last_character() -> None:
    automaton = WordAutomaton(BYTES, ["炸弹"])
    whole = BYTES.convert_tokens_to_ids(
        list("".join(BYTES.tokenize("这", add_special_tokens=False)))
    )
    letters = byte_level()
    split = letters.tokenize("炸弹", add_special_tokens=False)
    tokens = BYTES.convert_tokens_to_ids(split)
    last = automaton.tokens.index(tokens[-1])
    assert automaton.weights([*whole, *tokens[:-1]])[last] == 1.0
    assert automaton.weights([*whole, *tokens[:-2]])[last] == 0.0


def test_other_ways_of_writing_pieces() -> None:
    """WordPiece, and marks at the end of words."""
    for pieces in (
        {"the": 0, "bo": 1, "##mb": 2, "##s": 3},
        {"the</w>": 0, "bo": 1, "mb</w>": 2, "s</w>": 3},
        {"the": 0, "bo@@": 1, "mb": 2, "s": 3},
        {"▁the": 0, "▁bo": 1, "mb": 2, "s": 3},
    ):
        automaton = WordAutomaton(Listed(pieces), ["bomb"])
        found = automaton.weights([0, 1])
        assert dict(zip(automaton.tokens, found, strict=True))[2] == 1.0
        assert automaton.weights([0]).tolist() == [0.0] * len(automaton.tokens)


class Listed(Subwords):
    """The word "bomb" in tokens 1 and 2."""

    def __init__(self, ids: dict[str, int]) -> None:
        self.ids = ids

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, Any]:
        before = [0] if text.startswith("The") else []
        return {"input_ids": before + [1, 2] * ("bomb" in text.lower())}

    def decode(self, ids: Any) -> str:
        return "".join(["the", " bo", "mb", "s"][token] for token in ids)


def test_a_tokenizer_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(ArgumentError, match="tokens of 'bomb' do not write it"):
        WordAutomaton(Listed({"x": 0, "y": 1, "z": 2, "w": 3}), ["bomb"])


def test_tokens_without_logits_are_left_out() -> None:
    whole = WordAutomaton(TOKENIZER, ["kill"])
    size = max(whole.tokens)
    assert WordAutomaton(TOKENIZER, ["kill"], size=size).tokens == whole.tokens[:-1]
