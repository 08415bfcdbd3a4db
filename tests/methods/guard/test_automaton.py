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
