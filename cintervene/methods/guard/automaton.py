# SPDX-License-Identifier: Apache-2.0
"""Which next tokens would say a forbidden word, given the tokens so far.

A word can be cut into tokens in many ways, and a model that may not take the usual one
takes another. Words are therefore followed letter by letter, in the letters of the
tokenizer's own pieces: any piece that goes on along a word leads to the next state, and
whichever piece completes the word is forbidden.
"""

from __future__ import annotations

import string
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np

from cintervene.prompts.spelling import distinctiveness, spell, surface_forms
from cintervene.utils.arrays import Floats

__all__ = ["WordAutomaton"]

# What pieces of the usual tokenizers write for a space before a word.
SPACES = "Ġ▁ "
# What a word may follow: nothing, a line, a quote, another word. Pieces differ there.
CONTEXTS = ("", "\n", '"', "The")
_FOLD = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
# States: between words, and where a word may begin without a space of its own.
_ANYWHERE, _BOUNDARY = " ", ""


class WordAutomaton:
    """Follows texts along the spellings of words.

    Parameters
    ----------
    tokenizer
        With `get_vocab`, the pieces and their ids.
    words : sequence of str

    Attributes
    ----------
    tokens : list of int
        Every token that is ever forbidden, ascending.
    """

    def __init__(self, tokenizer: Any, words: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._word_ends: dict[int, bool] = {}
        pieces = _Pieces(tokenizer.get_vocab())
        steps: dict[str, dict[int, str]] = defaultdict(dict)
        weights: dict[str, dict[int, float]] = defaultdict(dict)
        self._reach = 1
        for word in words:
            for spelled, usual in _spellings(tokenizer, pieces, word):
                self._reach = max(self._reach, len(spelled))
                for state, token, end in pieces.along(spelled):
                    steps[state][token] = spelled[:end]
                    weight = _weight(state, spelled, end, word, (state, token) in usual)
                    weights[state][token] = max(weights[state].get(token, 0.0), weight)
        self._steps = dict(steps)
        limited = {
            state: {token: weight for token, weight in row.items() if weight}
            for state, row in weights.items()
        }
        self.tokens = sorted({token for row in limited.values() for token in row})
        column = {token: at for at, token in enumerate(self.tokens)}
        self._weights = {
            state: [(column[token], weight) for token, weight in row.items()]
            for state, row in limited.items()
        }
        self._base = {
            boundary: self._fill(np.zeros(len(self.tokens)), _begun(boundary))
            for boundary in (False, True)
        }

    @property
    def reach(self) -> int:
        """How many of the last tokens matter."""
        return self._reach + 1

    def weights(self, history: Sequence[int]) -> Floats:
        """Weights w_t of the strength for each of `tokens` as the next one.

        Parameters
        ----------
        history : sequence of int
            The tokens so far, -1 for unknown ones; the last `reach` are enough.

        Returns
        -------
        ndarray, shape (tokens,)
            1 for tokens that complete a word; for the usual inner pieces of a word, how
            distinctive what is said so far is; 0 for tokens that are free.
        """
        states: list[str] = []
        boundary = True
        for token in history[-self.reach :]:
            reached = (
                self._steps.get(state, {}).get(token)
                for state in (*states, *_begun(boundary))
            )
            states = list({state for state in reached if state is not None})
            boundary = not self._ends_in_word(token)
        base = self._base[boundary]
        return self._fill(base.copy(), states) if states else base

    def _fill(self, weights: Floats, states: Sequence[str]) -> Floats:
        for state in states:
            for column, weight in self._weights.get(state, ()):
                weights[column] = max(weights[column], weight)
        return weights

    def _ends_in_word(self, token: int) -> bool:
        if token < 0:
            return False
        if token not in self._word_ends:
            self._word_ends[token] = self._tokenizer.decode([token])[-1:].isalnum()
        return self._word_ends[token]


class _Pieces:
    """The pieces of a vocabulary, found by what they spell."""

    def __init__(self, vocabulary: dict[str, int]) -> None:
        self.of = {token: piece for piece, token in vocabulary.items()}
        self._plain: dict[str, list[int]] = defaultdict(list)
        self._led: dict[str, list[int]] = defaultdict(list)
        for piece, token in vocabulary.items():
            folded = piece.translate(_FOLD)
            self._plain[folded].append(token)
            bare = folded.lstrip(SPACES + string.punctuation)
            if bare != folded:
                self._led[bare].append(token)

    def spelled(self, tokens: Sequence[int]) -> str:
        """Letters of pieces, without the space before them."""
        return "".join(self.of[t] for t in tokens).translate(_FOLD).lstrip(SPACES)

    def along(self, spelled: str) -> Iterator[tuple[str, int, int]]:
        """Every (state, token, end) such that the token leads on along the word."""
        for end in range(1, len(spelled) + 1):
            for token in self._led.get(spelled[:end], ()):
                yield _ANYWHERE, token, end
            for start in range(end):
                for token in self._plain.get(spelled[start:end], ()):
                    yield spelled[:start], token, end


def _spellings(
    tokenizer: Any, pieces: _Pieces, word: str
) -> Iterator[tuple[str, set[tuple[str, int]]]]:
    """Each way of writing the word, with the usual (state, token) pairs on its way."""
    usual_steps: dict[str, set[tuple[str, int]]] = defaultdict(set)
    for form, before, gap in product(surface_forms(word), CONTEXTS, ("", " ")):
        if before[-1:].isalnum() and not gap:
            continue
        _, tokens = spell(tokenizer, before, gap + form)
        usual = usual_steps[pieces.spelled(tokens)]
        for at, token in enumerate(tokens):
            state = pieces.spelled(tokens[:at])
            usual.add((state or _BOUNDARY, token))
            if not state:
                usual.add((_ANYWHERE, token))
    yield from ((text, usual) for text, usual in usual_steps.items() if text)


def _begun(boundary: bool) -> list[str]:
    """States in which a word begins, at the boundary of words or elsewhere."""
    return [_ANYWHERE, _BOUNDARY] if boundary else [_ANYWHERE]


def _weight(state: str, spelled: str, end: int, word: str, usual: bool) -> float:
    if end == len(spelled):
        return 1.0
    return distinctiveness(end, word) if usual and state.strip() else 0.0
