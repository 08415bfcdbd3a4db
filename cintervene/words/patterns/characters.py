# SPDX-License-Identifier: Apache-2.0
"""Sets of characters as ascending ranges of code points, both ends included."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import cache

from cintervene.words.spellings import folded_alike

__all__ = [
    "DIGITS",
    "EVERYTHING",
    "LINE_END",
    "SPACES",
    "WORDS",
    "Ranges",
    "any_case",
    "complement",
    "is_word",
    "named",
    "union",
]

Ranges = tuple[tuple[int, int], ...]

_LAST = 0x10FFFF
# Surrogates are no characters, and U+FFFD stands for bytes that write none.
EVERYTHING: Ranges = ((0, _LAST),)
LINE_END: Ranges = ((10, 10),)


def is_word(character: str) -> bool:
    r"""Whether it is one of ``\w``."""
    return character.isalnum() or character == "_"


DIGITS, SPACES, WORDS = "d", "s", "w"
_KINDS: dict[str, Callable[[str], bool]] = {
    DIGITS: str.isdecimal,
    SPACES: str.isspace,
    WORDS: is_word,
}


@cache
def named(name: str) -> Ranges:
    """The characters that ``re`` calls so: `DIGITS`, `SPACES` or `WORDS`."""
    belongs = _KINDS[name]
    return _ranges(point for point in range(_LAST + 1) if belongs(chr(point)))


def union(sets: Iterable[Ranges]) -> Ranges:
    """All characters of some sets."""
    found: list[tuple[int, int]] = []
    for low, high in sorted(pair for ranges in sets for pair in ranges):
        if found and low <= found[-1][1] + 1:
            found[-1] = found[-1][0], max(found[-1][1], high)
        else:
            found.append((low, high))
    return tuple(found)


def complement(ranges: Ranges) -> Ranges:
    """All other characters."""
    found, at = [], 0
    for low, high in ranges:
        if low > at:
            found.append((at, low - 1))
        at = high + 1
    return (*found, (at, _LAST)) if at <= _LAST else tuple(found)


def any_case(ranges: Ranges) -> Ranges:
    """The characters of a set, and what they are in another case."""
    others = (
        ord(other)
        for low, high in ranges
        for point in _cased(low, high)
        for other in _other_cases(chr(point))
    )
    return union([ranges, _ranges(sorted(others))])


def _cased(low: int, high: int) -> Sequence[int]:
    if high - low < 4:
        return range(low, high + 1)
    return [point for point in _all_cased() if low <= point <= high]


@cache
def _all_cased() -> tuple[int, ...]:
    return tuple(
        point
        for point in range(0x20000)
        if unicodedata.category(chr(point)) in ("Lu", "Ll", "Lt")
    )


def _other_cases(one: str) -> list[str]:
    """Single characters that differ in case alone."""
    folded = one.casefold()
    alike = [one.lower(), one.upper(), one.title(), folded, *folded_alike()[folded]]
    return [other for other in alike if len(other) == 1]


def _ranges(points: Iterable[int]) -> Ranges:
    found: list[tuple[int, int]] = []
    for point in points:
        if found and point <= found[-1][1] + 1:
            found[-1] = found[-1][0], point
        else:
            found.append((point, point))
    return tuple(found)
