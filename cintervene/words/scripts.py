# SPDX-License-Identifier: Apache-2.0
"""Where words begin and end, in scripts that part them by spaces and in others."""

from __future__ import annotations

import unicodedata
from functools import cache

__all__ = ["begins_anywhere", "ends_anywhere", "is_mark", "joins", "last_unmarked"]

# First words of Unicode's names for letters of scripts that do not part words.
_UNSPACED = (
    "BALINESE", "BOPOMOFO", "CJK", "HALFWIDTH KATAKANA", "HIRAGANA", "IDEOGRAPHIC",
    "JAVANESE", "KATAKANA", "KHMER", "LAO", "MYANMAR", "NEW TAI", "TAI", "THAI",
    "TIBETAN", "YI",
)  # fmt: skip
# Words are parted by spaces, but particles follow them without one.
_AGGLUTINATED = ("HANGUL", "HALFWIDTH HANGUL")


@cache
def _named(character: str, names: tuple[str, ...]) -> bool:
    name = unicodedata.name(character, "")
    return any(name.startswith((one + " ", one + "-")) for one in names)


def is_mark(character: str) -> bool:
    """Whether it belongs to the character before it, as accents do."""
    return unicodedata.category(character).startswith("M")


def joins(character: str) -> bool:
    """Whether a letter right behind or before it would be of the same word."""
    return character.isalnum() and not _named(character, _UNSPACED)


def begins_anywhere(character: str) -> bool:
    """Whether a word that begins so may follow another letter directly."""
    return not joins(character)


def ends_anywhere(character: str) -> bool:
    """Whether another letter may follow a word that ends so."""
    return not joins(character) or _named(character, _AGGLUTINATED)


def last_unmarked(text: str) -> str:
    """The last character that is no mark on the one before it; none if all are."""
    return next((letter for letter in reversed(text) if not is_mark(letter)), "")
