# SPDX-License-Identifier: Apache-2.0
"""Which next tokens would complete a match of a pattern, given the tokens so far."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from cintervene.utils.recent import Recent
from cintervene.words.patterns.automaton import MATCH, PatternAutomaton
from cintervene.words.vocabulary import Vocabulary, read_on

__all__ = ["PatternFollower", "Place"]

Tokens = npt.NDArray[np.int64]
# A state of each automaton, and the bytes of a character that is not complete.
Place = tuple[tuple[int, ...], bytes]
# Characters of which the classes are remembered, and places of which the tokens are.
_CHARACTERS, _PLACES, _STATES = 4096, 4096, 100_000


class PatternFollower:
    """Follows texts along patterns.

    Parameters
    ----------
    vocabulary : Vocabulary
        What each token writes.
    automata : sequence of PatternAutomaton

    Attributes
    ----------
    begin : Place
        Where texts begin.
    """

    def __init__(
        self, vocabulary: Vocabulary, automata: Sequence[PatternAutomaton]
    ) -> None:
        self._letters = vocabulary.letters
        self._automata = automata
        self._rows = [one.table.tolist() for one in automata]
        self._ends = [one.ends.tolist() for one in automata]
        self._classes = [one.classes(self._letters.alphabet) for one in automata]
        self._kinds: Recent[str, list[int]] = Recent(_CHARACTERS)
        self._complete: Recent[Place, Tokens] = Recent(_PLACES)
        self._of_state: Recent[tuple[int, int, bytes], Tokens] = Recent(_STATES)
        self.begin: Place = tuple(one.rest[False] for one in automata), b""

    def after(self, place: Place, text: bytes) -> Place:
        """Where a text is after more bytes.

        What matches already is forgotten, as if nothing of the pattern had been begun,
        so that what stands in a text is not held against what follows.
        """
        states, pending = list(place[0]), place[1]
        letters, pending = read_on(pending, text)
        for one in letters:
            for at, kind in enumerate(self._kinds.get(one, partial(self._kind, one))):
                states[at] = self._rows[at][states[at]][kind]
                if states[at] == MATCH:
                    states[at] = self._automata[at].resting(one)
        for at, state in enumerate(states):
            if letters and self._ends[at][state]:
                states[at] = self._automata[at].resting(letters[-1])
        return tuple(states), pending

    def completing(self, place: Place) -> Tokens:
        """The tokens after which the text would hold a match, ascending."""
        return self._complete.get(place, partial(self._find, place))

    def _kind(self, one: str) -> list[int]:
        point = np.array([ord(one)])
        return [int(automaton.classes(point)[0]) for automaton in self._automata]

    def _find(self, place: Place) -> Tokens:
        states, pending = place
        each = [
            self._of_state.get(
                (at, state, pending), partial(self._find_one, at, state, pending)
            )
            for at, state in enumerate(states)
        ]
        return np.unique(np.concatenate([np.zeros(0, np.int64), *each]))

    def _find_one(self, at: int, state: int, pending: bytes) -> Tokens:
        """The tokens that complete one of the patterns."""
        automaton = self._automata[at]
        partial_tokens = [
            token
            for token, text in self._letters.partial.items()
            if automaton.ends[automaton.after(state, read_on(pending, text)[0])]
        ]
        if pending:
            # A token that begins a character leaves an open one unwritten.
            state = automaton.after(state, "\ufffd")
        states = np.full(len(self._letters.tokens), state, dtype=np.int32)
        for column in self._letters.columns:
            there = states[: len(column)]
            there[:] = automaton.table[there, self._classes[at][column]]
        whole = self._letters.tokens[automaton.ends[states]]
        return np.concatenate([whole, np.array(partial_tokens, dtype=np.int64)])
