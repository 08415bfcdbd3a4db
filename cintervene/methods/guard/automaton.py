# SPDX-License-Identifier: Apache-2.0
"""Which next tokens would say a forbidden word, given the tokens so far.

A word can be cut into tokens in many ways, and a model that may not take the usual one
takes another. Words are therefore followed byte by byte through what tokens write: any
token that goes on along a word leads to the next state, and whichever token completes
the word is forbidden.
"""

from __future__ import annotations

import codecs
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np

from cintervene.errors import ArgumentError
from cintervene.methods.guard.pieces import token_bytes
from cintervene.methods.guard.scripts import (
    begins_anywhere,
    ends_anywhere,
    is_mark,
    joins,
)
from cintervene.methods.guard.spellings import Read, Spellings
from cintervene.prompts.spelling import distinctiveness, spell, surface_forms
from cintervene.utils.arrays import Floats

__all__ = ["WordAutomaton"]

# What a word may follow: nothing, a line, a quote, another word. Tokens differ there.
CONTEXTS = ("", "\n", '"', "The")

# What is read of a word: its number, and how far it is.
State = tuple[int, Read]
# Where words begin: at any place, and where nothing before could be of the same word.
_ANYWHERE: State = (-1, (0, b""))
_BOUNDARY: State = (-2, (0, b""))


class WordAutomaton:
    """Follows texts along the spellings of words.

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
        written = token_bytes(tokenizer)
        self._written = {
            token: text
            for token, text in written.items()
            if size is None or token < size
        }
        self._endings: dict[bytes, tuple[bool | None, bytes]] = {}
        self._words = [Spellings(word) for word in words]
        self._lasts = [word[-1] for word in words]
        self.reach = 8 + max(len(word.encode()) for word in words)
        self._steps: dict[State, dict[int, list[State]]] = {
            _ANYWHERE: {},
            _BOUNDARY: {},
        }
        self._complete: dict[State, set[int]] = defaultdict(set)
        self._explore(words)
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
            boundary: self._fill(np.zeros(len(self.tokens)), _begun(boundary))
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

    def completing(self, history: Sequence[int]) -> list[int]:
        """The tokens that complete a word as the next one; `history` as above."""
        states, boundary = self._reached_by(history)
        found = [self._complete.get(one, ()) for one in (*states, *_begun(boundary))]
        return sorted(set().union(*found))

    def _reached_by(self, history: Sequence[int]) -> tuple[set[State], bool]:
        """States after some tokens, and whether a word may begin behind them."""
        states: set[State] = set()
        boundary, pending = True, b""
        for token in history[-self.reach :]:
            text = self._written.get(token, b"")
            if not text:
                states, boundary, pending = set(), True, b""
                continue
            states = {
                reached
                for state in (*states, *_begun(boundary))
                for reached in self._steps.get(state, {}).get(token, ())
            }
            ends, pending = self._ending(pending + text)
            boundary = boundary if ends is None else ends
        return states, boundary

    def _fill(self, weights: Floats, states: Iterable[State]) -> Floats:
        for state in states:
            for column, weight in self._weights.get(state, ()):
                weights[column] = max(weights[column], weight)
        return weights

    def _ending(self, text: bytes) -> tuple[bool | None, bytes]:
        """Whether a word may begin after a text, and the bytes of an open character.

        None where no character in it tells.
        """
        if text not in self._endings:
            decoder = codecs.getincrementaldecoder("utf-8")("ignore")
            last = _last_unmarked(decoder.decode(text))
            ends = not joins(last) if last else None
            self._endings[text] = ends, decoder.getstate()[0]
        return self._endings[text]

    def _explore(self, words: Sequence[str]) -> None:
        """Find every state that tokens lead to, and the tokens that complete a word."""
        free = [number for number, word in enumerate(words) if begins_anywhere(word[0])]
        bound = [number for number in range(len(words)) if number not in free]
        begins = {byte for word in self._words for byte in word.next_bytes((0, b""))}
        whole = _Sorted((text, token) for token, text in self._written.items() if text)
        within = _Sorted(_inner_starts(self._written, begins, bounded=True))
        behind = _Sorted(_inner_starts(self._written, begins)) if free else _Sorted(())
        for begin, numbers, texts in (
            (_ANYWHERE, free, whole), (_BOUNDARY, bound, whole),
            (_ANYWHERE, free, behind), (_ANYWHERE, bound, within),
        ):  # fmt: skip
            for number in numbers:
                self._follow(begin, (number, (0, b"")), texts)
        left = [
            state for row in self._steps.values() for to in row.values() for state in to
        ]
        while left:
            state = left.pop()
            if state not in self._steps:
                self._steps[state] = {}
                self._follow(state, state, whole)
                left += [one for to in self._steps[state].values() for one in to]

    def _follow(
        self,
        state: State,
        start: State,
        texts: _Sorted,
    ) -> None:
        """Add the tokens that lead on from a place in a word."""
        number, read = start
        word, last = self._words[number], self._lasts[number]
        steps = self._steps.setdefault(state, {})
        for token, rest, reached in texts.along(word, read):
            done = (len(word), b"") in reached
            if rest:
                if done and _parted(last, rest):
                    self._complete[state].add(token)
                continue
            if done:
                self._complete[state].add(token)
            steps.setdefault(token, []).extend(
                (number, one) for one in reached if one[0] < len(word)
            )

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
            states = [_ANYWHERE, _BOUNDARY]
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


class _Sorted:
    """Byte strings in order, to find those that begin alike."""

    def __init__(self, entries: Iterable[tuple[bytes, int]]) -> None:
        self._entries = sorted(entries)
        self._texts = [text for text, _ in self._entries]

    def along(
        self, word: Spellings, read: Read
    ) -> Iterator[tuple[int, bytes, set[Read]]]:
        """Every (token, rest, reached) such that a part leads on along a word.

        The rest is what the token writes behind that part: nothing, or anything behind
        the whole word.
        """
        left = [(b"", 0, len(self._texts), {read})]
        while left:
            text, low, high, reads = left.pop()
            for byte in {one for read in reads for one in word.next_bytes(read)}:
                longer = text + bytes([byte])
                first = bisect_left(self._texts, longer, low, high)
                end = bisect_left(self._texts, _after(longer), first, high)
                if first == end:
                    continue
                reached = {two for one in reads for two in word.step(one, byte)}
                said = (len(word), b"") in reached
                for at in range(first, end):
                    rest = self._texts[at][len(longer) :]
                    if rest and not said:
                        break
                    yield self._entries[at][1], rest, reached
                left.append((longer, first, end, reached))


def _after(text: bytes) -> bytes:
    """The least byte string above all that begin with one of UTF-8."""
    return text[:-1] + bytes([text[-1] + 1]) if text[-1] < 255 else text + b"\xff"


def _inner_starts(
    written: dict[int, bytes], begins: set[int], bounded: bool = False
) -> Iterator[tuple[bytes, int]]:
    """What tokens write from within, wherever a word may begin there."""
    for token, text in written.items():
        for at in range(1, len(text)):
            if text[at] in begins and not (bounded and _inside(text[:at])):
                yield text[at:], token


def _inside(text: bytes) -> bool:
    """Whether a letter behind a text would be of the word that is going on."""
    if text[-1] < 128:
        return chr(text[-1]).isalnum()
    last = _last_unmarked(text.decode(errors="ignore"))
    return bool(last) and joins(last)


def _last_unmarked(text: str) -> str:
    """The last character that is no mark on the one before it; none if all are."""
    return next((letter for letter in reversed(text) if not is_mark(letter)), "")


def _parted(last: str, rest: bytes) -> bool:
    """Whether a word that ends so has ended where a token goes on with other bytes."""
    following = rest.decode(errors="ignore")[:1]
    if not following:
        return True
    if is_mark(following):
        return False
    return ends_anywhere(last) or not joins(following)


def _begun(boundary: bool) -> list[State]:
    """States in which a word begins, at the boundary of words or elsewhere."""
    return [_ANYWHERE, _BOUNDARY] if boundary else [_ANYWHERE]
