# SPDX-License-Identifier: Apache-2.0
"""Text in lines of so many cells of a terminal."""

from __future__ import annotations

import re
import unicodedata

from cintervene.utils.escaping import printable_lines

__all__ = ["cells", "harmless", "padded", "wrapped"]

TAB = "    "
# A word with the spaces before it.
WORD = re.compile(r" *[^ ]+| +")


def harmless(text: str) -> str:
    """What a model wrote, with spaces for tabs and escapes for what moves a cursor.

    Each character by itself, so that what grows at its end does so here too.
    """
    return printable_lines(text.replace("\t", TAB))


def cells(text: str) -> int:
    """How many cells of a terminal a text takes up."""
    return sum(map(_cells, text))


def padded(text: str, width: int) -> str:
    """A text with spaces behind it up to so many cells."""
    return text + " " * max(0, width - cells(text))


def wrapped(text: str, width: int) -> list[str]:
    """Lines of so many cells at most, broken between words where that is possible.

    All but the last one stay as they are when the text grows at its end.
    """
    return [part for line in text.split("\n") for part in _wrapped_line(line, width)]


def _wrapped_line(line: str, width: int) -> list[str]:
    lines, used = [""], 0
    for word in WORD.findall(line):
        if used + cells(word) > width and lines[-1].strip():
            word, used = word.lstrip(" "), 0
            lines.append("")
        for character in word:
            if used + _cells(character) > width:
                used = 0
                lines.append("")
            lines[-1] += character
            used += _cells(character)
    return lines


def _cells(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
