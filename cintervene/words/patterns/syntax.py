# SPDX-License-Identifier: Apache-2.0
"""Regular expressions as trees.

What can be followed letter by letter is read as ``re`` reads it: characters, classes,
groups, alternatives, repetitions and word boundaries. What would have to look elsewhere
in the text is refused.
"""

from __future__ import annotations

import re
import string
from dataclasses import dataclass

from cintervene.errors import ArgumentError
from cintervene.words.patterns.characters import (
    EVERYTHING,
    LINE_END,
    Ranges,
    any_case,
    complement,
    named,
    union,
)

__all__ = ["Any", "Boundary", "Either", "Node", "Repeat", "Then", "parse"]


@dataclass(frozen=True)
class Any:
    """One character of a set."""

    ranges: Ranges


@dataclass(frozen=True)
class Boundary:
    """Where a word begins or ends, or (`wanted` False) where none does."""

    wanted: bool


@dataclass(frozen=True)
class Then:
    """One after the other."""

    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Either:
    """One of several."""

    ways: tuple[Node, ...]


@dataclass(frozen=True)
class Repeat:
    """So many times; `most` None for any number."""

    part: Node
    least: int
    most: int | None


Node = Any | Boundary | Then | Either | Repeat

# Groups in groups. Each takes several calls of Python's, which has room for a thousand.
_MOST_NESTED = 64
_CONTROLS = {"n": 10, "t": 9, "r": 13, "f": 12, "v": 11, "a": 7}
_HEXADECIMAL = {"x": 2, "u": 4, "U": 8}
_COUNT = re.compile(r"\{(\d*)(,?)(\d*)\}")
_GROUP = re.compile(r"\?(?::|P<\w+>)")
_UNICODE = re.UNICODE | re.IGNORECASE | re.DOTALL


def parse(pattern: str | re.Pattern[str]) -> Node:
    r"""Read a pattern.

    Parameters
    ----------
    pattern : str or re.Pattern
        With the flags `re.IGNORECASE` and `re.DOTALL`, or ``(?i)`` and ``(?s)`` in
        front.

    Raises
    ------
    ArgumentError
        It is no regular expression, or has what cannot be followed: ``^``, ``$`` and
        other anchors, what looks ahead or behind, references to groups, atomic groups,
        other flags.
    """
    try:
        compiled = re.compile(pattern)
    except (re.error, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ArgumentError(
            f"patterns: {pattern!r} is no regular expression ({error})"
        ) from error
    text = compiled.pattern
    if not isinstance(text, str):
        raise ArgumentError(f"patterns: got {text!r}; expected str, not bytes")
    if compiled.flags & ~_UNICODE:
        raise _refused(text, "flags other than IGNORECASE and DOTALL")
    return _Reader(text, compiled.flags).read()


def _refused(text: str, what: str) -> ArgumentError:
    return ArgumentError(
        f"patterns: {text!r} has {what}, which cannot be followed while a text is "
        "written. Leave that out"
    )


class _Reader:
    """Reads a text that ``re`` has found to be a pattern."""

    def __init__(self, text: str, flags: int) -> None:
        self._text, self._at, self._nested = text, 0, 0
        self._caseless = bool(flags & re.IGNORECASE)
        self._dot = EVERYTHING if flags & re.DOTALL else complement(LINE_END)

    def read(self) -> Node:
        flags = re.match(r"\(\?[a-zA-Z]+\)", self._text)
        self._at = flags.end() if flags else 0
        return self._either()

    def _either(self) -> Node:
        ways = [self._then()]
        while self._take("|"):
            ways.append(self._then())
        return ways[0] if len(ways) == 1 else Either(tuple(ways))

    def _then(self) -> Node:
        parts: list[Node] = []
        while self._at < len(self._text) and self._text[self._at] not in "|)":
            parts.append(self._repeated(self._atom()))
        return Then(tuple(parts))

    def _repeated(self, part: Node) -> Node:
        while True:
            counted = _COUNT.match(self._text, self._at)
            if self._take("*"):
                part = Repeat(part, 0, None)
            elif self._take("+"):
                part = Repeat(part, 1, None)
            elif self._take("?"):
                part = Repeat(part, 0, 1)
            elif counted and counted[0] != "{}":
                self._at = counted.end()
                least = int(counted[1] or 0)
                most = int(counted[3]) if counted[3] else None
                part = Repeat(part, least, most if counted[2] else least)
            else:
                return part
            # Which of several matches is taken makes no difference to whether one is.
            self._take("?")
            if self._text[self._at : self._at + 1] == "+":
                raise _refused(self._text, "a possessive repetition")

    def _atom(self) -> Node:
        one = self._next()
        if one == "(":
            return self._group()
        if one == "[":
            return Any(self._class())
        if one == ".":
            return Any(self._dot)
        if one in "^$":
            raise _refused(self._text, f"the anchor {one}")
        if one == "\\":
            return self._escape()
        return self._literal(ord(one))

    def _group(self) -> Node:
        kind = _GROUP.match(self._text, self._at)
        if kind:
            self._at = kind.end()
        elif self._text[self._at] == "?":
            raise _refused(self._text, f"a group ({self._text[self._at :][:3]}")
        self._nested += 1
        if self._nested > _MOST_NESTED:
            raise _refused(self._text, f"more than {_MOST_NESTED} groups in each other")
        inner = self._either()
        self._nested -= 1
        self._at += 1
        return inner

    def _escape(self) -> Node:
        one = self._text[self._at]
        if one in "bB":
            self._at += 1
            return Boundary(one == "b")
        if one in "AZz" or (one.isdigit() and one != "0"):
            raise _refused(self._text, f"\\{one}")
        point = self._escaped()
        return Any(point) if isinstance(point, tuple) else self._literal(point)

    def _escaped(self) -> int | Ranges:
        """A character, or a set, behind a backslash."""
        one = self._next()
        if one.lower() in "dsw":
            ranges = named(one.lower())
            return ranges if one.islower() else complement(ranges)
        if one in _HEXADECIMAL:
            digits = self._text[self._at : self._at + _HEXADECIMAL[one]]
            self._at += len(digits)
            return int(digits, 16)
        if one in string.octdigits:
            return self._octal(one)
        if one in string.ascii_letters and one not in _CONTROLS:
            raise _refused(self._text, f"\\{one}")
        return _CONTROLS.get(one, ord(one))

    def _octal(self, digits: str) -> int:
        more = re.compile("[0-7]{0,2}").match(self._text, self._at)
        rest = more[0] if more else ""
        self._at += len(rest)
        return int(digits + rest, 8)

    def _class(self) -> Ranges:
        other = self._take("^")
        sets: list[Ranges] = []
        first = True
        while first or self._text[self._at] != "]":
            first = False
            low = self._member()
            if self._is_range() and isinstance(low, int):
                self._at += 1
                high = self._member()
                sets.append(((low, high if isinstance(high, int) else low),))
            else:
                sets.append(((low, low),) if isinstance(low, int) else low)
        self._at += 1
        found = self._cased(union(sets))
        return complement(found) if other else found

    def _is_range(self) -> bool:
        return self._text[self._at] == "-" and self._text[self._at + 1] != "]"

    def _member(self) -> int | Ranges:
        one = self._next()
        if one != "\\":
            return ord(one)
        if self._take("b"):
            return 8
        return self._escaped()

    def _literal(self, point: int) -> Node:
        return Any(self._cased(((point, point),)))

    def _cased(self, ranges: Ranges) -> Ranges:
        return any_case(ranges) if self._caseless else ranges

    def _next(self) -> str:
        self._at += 1
        return self._text[self._at - 1]

    def _take(self, one: str) -> bool:
        taken: bool = self._text[self._at : self._at + 1] == one
        self._at += taken
        return taken
