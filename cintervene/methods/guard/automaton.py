# SPDX-License-Identifier: Apache-2.0
"""Which next tokens would say a forbidden word, given the tokens so far.

A word can be cut into tokens in many ways, and a model that may not take the usual one
takes another. Words are therefore followed byte by byte through what tokens write: any
token that goes on along a word leads to the next state, and whichever token completes
the word is forbidden.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any

import numpy as np

from cintervene.errors import ArgumentError
from cintervene.prompts.spelling import distinctiveness, spell, surface_forms
from cintervene.utils.arrays import Floats
from cintervene.words.follower import ANYWHERE, BOUNDARY, State, WordFollower, begun
from cintervene.words.scripts import joins
from cintervene.words.vocabulary import Vocabulary

__all__ = ["WordAutomaton"]

# What a word may follow: nothing, a line, a quote, another word. Tokens differ there.
CONTEXTS = ("", "\n", '"', "The")


class WordAutomaton(WordFollower):
    """Follows texts along the spellings of words, and says what limits them.

    Parameters
    ----------
    tokenizer
        With `get_vocab`, the pieces and their ids.
    words : sequence of str
        In the form of `cintervene.data.normal_word`.
    size : int, optional
        How many logits the model has; tokens beyond are not looked at.

    Attributes
    ----------
    tokens : list of int
        Every token that is ever forbidden, ascending.

    Raises
    ------
    ArgumentError
        What the tokens of a word write is not the word.
    """

    def __init__(
        self, tokenizer: Any, words: Sequence[str], size: int | None = None
    ) -> None:
        super().__init__(Vocabulary.of(tokenizer, size), words)
        weights = {
            state: dict.fromkeys(tokens, 1.0)
            for state, tokens in self._complete.items()
        }
        for number, word in enumerate(words):
            self._weigh_usual(tokenizer, number, word, weights)
        self.tokens = sorted({token for row in weights.values() for token in row})
        column = {token: at for at, token in enumerate(self.tokens)}
        self._weights = {
            state: [(column[token], weight) for token, weight in row.items()]
            for state, row in weights.items()
        }
        self._base = {
            boundary: self._fill(np.zeros(len(self.tokens)), begun(boundary))
            for boundary in (False, True)
        }

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
        states, boundary = self._reached_by(history)
        base = self._base[boundary]
        return self._fill(base.copy(), states) if states else base

    def _fill(self, weights: Floats, states: Iterable[State]) -> Floats:
        for state in states:
            for column, weight in self._weights.get(state, ()):
                weights[column] = max(weights[column], weight)
        return weights

    def _weigh_usual(
        self,
        tokenizer: Any,
        number: int,
        word: str,
        weights: dict[State, dict[int, float]],
    ) -> None:
        """Limit the usual inner tokens of a word by how much they tell of it."""
        said = False
        for form, before, gap in product(surface_forms(word), CONTEXTS, ("", " ")):
            if joins(before[-1:] or " ") and not gap:
                continue
            _, tokens = spell(tokenizer, before, gap + form)
            states = [ANYWHERE, BOUNDARY]
            for at, token in enumerate(tokens):
                said |= any(weights.get(one, {}).get(token) == 1.0 for one in states)
                reached = set()
                for state in states:
                    into = [
                        one for one in self._steps.get(state, {}).get(token, ())
                        if one[0] == number
                    ]  # fmt: skip
                    reached |= set(into)
                    if at and into:
                        letters = max(read for _, (read, _) in into)
                        row = weights.setdefault(state, {})
                        row[token] = max(
                            row.get(token, 0.0), distinctiveness(letters, word)
                        )
                states = list(reached)
        if not said:
            raise ArgumentError(
                f"tokenizer: the tokens of {word!r} do not write it "
                f"({type(tokenizer).__name__} is of a kind that is not known); the "
                "guard cannot follow words in it"
            )
