# SPDX-License-Identifier: Apache-2.0
"""Which next tokens would say a forbidden word, given the tokens so far.

A word can be cut into tokens in many ways, and a model that may not take the usual one
takes another. Words are therefore followed byte by byte through what tokens write: any
token that goes on along a word leads to the next state, and whichever token completes
the word is forbidden.
"""

from __future__ import annotations

import codecs
from collections import defaultdict
from collections.abc import Sequence

from cintervene.words.scripts import (
    begins_anywhere,
    ends_anywhere,
    is_mark,
    joins,
    last_unmarked,
)
from cintervene.words.spellings import Read, Spellings
from cintervene.words.vocabulary import SortedTexts, Vocabulary

__all__ = ["ANYWHERE", "BOUNDARY", "State", "WordFollower", "begun"]

# What is read of a word: its number, and how far it is.
State = tuple[int, Read]
# Where words begin: at any place, and where nothing before could be of the same word.
ANYWHERE: State = (-1, (0, b""))
BOUNDARY: State = (-2, (0, b""))


class WordFollower:
    """Follows texts along the spellings of words.

    Parameters
    ----------
    vocabulary : Vocabulary
        What each token writes.
    words : sequence of str
        In the form of `cintervene.data.normal_word`; none for nothing to follow.

    Attributes
    ----------
    reach : int
        So many of the last tokens tell what is being said.
    writable : set of int
        The words, by number, that tokens can write at all.
    """

    def __init__(self, vocabulary: Vocabulary, words: Sequence[str]) -> None:
        self._written = vocabulary.written
        self._endings: dict[bytes, tuple[bool | None, bytes]] = {}
        self._words = [Spellings(word) for word in words]
        self._lasts = [word[-1] for word in words]
        self.reach = 8 + max((len(word.encode()) for word in words), default=0)
        self._steps: dict[State, dict[int, list[State]]] = {ANYWHERE: {}, BOUNDARY: {}}
        self._complete: dict[State, set[int]] = defaultdict(set)
        self.writable: set[int] = set()
        self._explore(words, vocabulary)

    def completing(self, history: Sequence[int]) -> list[int]:
        """The tokens that complete a word as the next one.

        Parameters
        ----------
        history : sequence of int
            The tokens so far, -1 for unknown ones; the last `reach` are enough.
        """
        states, boundary = self._reached_by(history)
        found = [self._complete.get(one, ()) for one in (*states, *begun(boundary))]
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
                for state in (*states, *begun(boundary))
                for reached in self._steps.get(state, {}).get(token, ())
            }
            ends, pending = self._ending(pending + text)
            boundary = boundary if ends is None else ends
        return states, boundary

    def _ending(self, text: bytes) -> tuple[bool | None, bytes]:
        """Whether a word may begin after a text, and the bytes of an open character.

        None where no character in it tells.
        """
        if text not in self._endings:
            decoder = codecs.getincrementaldecoder("utf-8")("ignore")
            last = last_unmarked(decoder.decode(text))
            ends = not joins(last) if last else None
            self._endings[text] = ends, decoder.getstate()[0]
        return self._endings[text]

    def _explore(self, words: Sequence[str], vocabulary: Vocabulary) -> None:
        """Find every state that tokens lead to, and the tokens that complete a word."""
        free = [number for number, word in enumerate(words) if begins_anywhere(word[0])]
        bound = [number for number in range(len(words)) if number not in free]
        whole, within = vocabulary.whole, vocabulary.within
        behind = vocabulary.behind if free else whole
        for begin, numbers, texts in (
            (ANYWHERE, free, whole), (BOUNDARY, bound, whole),
            (ANYWHERE, free, behind), (ANYWHERE, bound, within),
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
        texts: SortedTexts,
    ) -> None:
        """Add the tokens that lead on from a place in a word."""
        number, read = start
        word, last = self._words[number], self._lasts[number]
        steps = self._steps.setdefault(state, {})
        for token, rest, reached in texts.along(word, read):
            done = (len(word), b"") in reached
            if done:
                self.writable.add(number)
            if rest:
                if done and _parted(last, rest):
                    self._complete[state].add(token)
                continue
            if done:
                self._complete[state].add(token)
            steps.setdefault(token, []).extend(
                (number, one) for one in reached if one[0] < len(word)
            )


def _parted(last: str, rest: bytes) -> bool:
    """Whether a word that ends so has ended where a token goes on with other bytes."""
    following = rest.decode(errors="ignore")[:1]
    if not following:
        return True
    if is_mark(following):
        return False
    return ends_anywhere(last) or not joins(following)


def begun(boundary: bool) -> list[State]:
    """States in which a word begins, at the boundary of words or elsewhere."""
    return [ANYWHERE, BOUNDARY] if boundary else [ANYWHERE]
