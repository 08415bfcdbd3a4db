# SPDX-License-Identifier: Apache-2.0
"""A deterministic automaton that finds a pattern anywhere in a text.

Characters that no part of the pattern tells apart are one class. A state is the set of
places in the pattern that a text may have come to, and whether its last character is of
a word, for boundaries; a match can begin at every character.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cintervene.errors import ArgumentError
from cintervene.words.patterns.characters import WORDS, Ranges, is_word, named
from cintervene.words.patterns.syntax import (
    Any,
    Boundary,
    Either,
    Node,
    Repeat,
    Then,
    parse,
)

__all__ = ["MATCH", "PatternAutomaton"]

# The state of a text that holds a match, which nothing leads out of.
MATCH = 0
_MOST_PLACES, _MOST_STATES = 5_000, 2_000

# Places that a text may have come to, and whether it ends in a letter of a word.
Situation = tuple[frozenset[int], bool]


@dataclass
class _Place:
    """A place in a pattern: what is wanted here, and where it leads."""

    then: list[int]
    ranges: Ranges | None = None
    boundary: bool | None = None


class PatternAutomaton:
    """Finds a pattern in texts that are read one character at a time.

    Parameters
    ----------
    pattern : str or re.Pattern
        As `parse` reads it.

    Attributes
    ----------
    table : ndarray of int32, shape (states, classes)
        The next state for each class of characters.
    ends : ndarray of bool, shape (states,)
        Whether a text that ends in this state holds a match.
    rest : dict
        The state in which nothing is begun, behind a letter of a word or not.

    Raises
    ------
    ArgumentError
        It cannot be followed, matches the empty text, or is too large.
    """

    def __init__(self, pattern: str | re.Pattern[str]) -> None:
        self._pattern = pattern
        self._places: list[_Place] = [_Place([])]
        self._start = self._build(parse(pattern), 0)
        self._bounded = any(one.boundary is not None for one in self._places)
        self._breaks, self._words, self._members = self._partition()
        if any(
            0 in self._closure((), before, after)
            for before in (False, True)
            for after in (False, True)
        ):
            raise ArgumentError(
                f"patterns: {self._text} matches the empty text, which every text has"
            )
        self._explore()

    @property
    def _text(self) -> str:
        one = self._pattern
        return repr(one if isinstance(one, str) else one.pattern)

    def classes(self, points: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
        """The class of each code point."""
        at = np.searchsorted(self._breaks, points, side="right") - 1
        return self._class_at[at]

    def after(self, state: int, text: str) -> int:
        """The state after more characters."""
        for kind in self.classes(np.array([ord(one) for one in text], dtype=np.int64)):
            state = int(self.table[state, kind])
        return state

    def resting(self, last: str) -> int:
        """The state in which nothing is begun, behind a character."""
        return self.rest[self._bounded and is_word(last)]

    def _build(self, node: Node, then: int) -> int:
        """Add the places of a part of the pattern; return where it begins."""
        if isinstance(node, Any):
            return self._add(_Place([then], ranges=node.ranges))
        if isinstance(node, Boundary):
            return self._add(_Place([then], boundary=node.wanted))
        if isinstance(node, Then):
            for part in reversed(node.parts):
                then = self._build(part, then)
            return then
        if isinstance(node, Either):
            return self._add(_Place([self._build(way, then) for way in node.ways]))
        return self._build_repeat(node, then)

    def _build_repeat(self, node: Repeat, then: int) -> int:
        if node.most is None:
            loop = self._add(_Place([then]))
            self._places[loop].then.append(self._build(node.part, loop))
            then = loop
        for _ in range((node.most or node.least) - node.least):
            then = self._add(_Place([then, self._build(node.part, then)]))
        for _ in range(node.least):
            begin = self._build(node.part, then)
            if begin == then:
                # Nothing is wanted, and billions of times that are nothing, too.
                break
            then = begin
        return then

    def _add(self, place: _Place) -> int:
        if len(self._places) >= _MOST_PLACES:
            raise self._too_large()
        self._places.append(place)
        return len(self._places) - 1

    def _too_large(self) -> ArgumentError:
        return ArgumentError(
            f"patterns: {self._text} has too many states; repeat less, or split it "
            "into several patterns"
        )

    def _closure(
        self, places: Iterable[int], before: bool, after: bool
    ) -> frozenset[int]:
        """Places reached without a character, between letters of words or others."""
        left, found = [*places, self._start], set()
        while left:
            one = left.pop()
            if one in found:
                continue
            found.add(one)
            place = self._places[one]
            if place.ranges is not None:
                continue
            if place.boundary is None or place.boundary == (before != after):
                left += place.then
        return frozenset(found)

    def _partition(
        self,
    ) -> tuple[npt.NDArray[np.int64], list[bool], list[frozenset[int]]]:
        """Classes: where ranges of characters begin, and of each class what it is."""
        sets = {one.ranges for one in self._places if one.ranges is not None}
        words = named(WORDS) if self._bounded else ()
        every = [*sets, words]
        breaks = sorted(
            {0, *(at for one in every for low, high in one for at in (low, high + 1))}
        )
        kinds: dict[tuple[bool, ...], int] = {}
        of_break = []
        columns = [_inside(one, breaks) for one in every]
        for told in zip(*columns, strict=True):
            of_break.append(kinds.setdefault(told, len(kinds)))
        self._class_at = np.array(of_break, dtype=np.int32)
        number = {one: at for at, one in enumerate(sets)}
        places = [
            (at, number[one.ranges])
            for at, one in enumerate(self._places)
            if one.ranges is not None
        ]
        members = [
            frozenset(place for place, which in places if told[which]) for told in kinds
        ]
        return np.array(breaks), [told[-1] for told in kinds], members

    def _explore(self) -> None:
        """Find every situation that a text can come to."""
        first: Situation = (frozenset(), False)
        behind: Situation = (frozenset(), self._bounded)
        numbers: dict[Situation | None, int] = {None: MATCH, first: 1}
        numbers.setdefault(behind, len(numbers))
        left = [*dict.fromkeys([first, behind])]
        rows: dict[int, list[int]] = {MATCH: [MATCH] * len(self._members)}
        ends = {MATCH: True}
        while left:
            situation = left.pop()
            places, before = situation
            closed = {
                after: self._closure(places, before, after) for after in (False, True)
            }
            row = []
            for word, members in zip(self._words, self._members, strict=True):
                reached = self._advance(closed[word], members, word)
                if reached is not None and reached not in numbers:
                    numbers[reached] = len(numbers)
                    left.append(reached)
                row.append(numbers[reached])
            rows[numbers[situation]] = row
            ends[numbers[situation]] = 0 in closed[False]
            if len(numbers) > _MOST_STATES:
                raise self._too_large()
        order = range(len(numbers))
        self.table = np.array([rows[at] for at in order], dtype=np.int32)
        self.ends = np.array([ends[at] for at in order])
        self.rest = {False: numbers[first], True: numbers[behind]}

    def _advance(
        self, closed: frozenset[int], members: frozenset[int], word: bool
    ) -> Situation | None:
        """The situation after a character; None where a match ends before it."""
        if 0 in closed:
            return None
        then = {self._places[one].then[0] for one in closed & members}
        return frozenset(then), self._bounded and word


def _inside(ranges: Ranges, breaks: list[int]) -> list[bool]:
    """Of each stretch that begins at a break whether a set has it."""
    lows = [low for low, _ in ranges]
    at = [bisect_right(lows, point) - 1 for point in breaks]
    return [
        which >= 0 and point <= ranges[which][1]
        for which, point in zip(at, breaks, strict=True)
    ]
