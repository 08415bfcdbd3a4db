# SPDX-License-Identifier: Apache-2.0
"""What models and users wrote, as text that no format takes for its own signs.

Words, answers, names of models and the records of interventions may hold anything: line
breaks, signs that move a terminal's cursor, HTML, formulas of spreadsheets. Each format
has one function here, and all that writes the format uses it.
"""

from __future__ import annotations

import re
import unicodedata
from html import escape

__all__ = [
    "csv_cell", "escaped", "html_text", "json_printable", "markdown_cell",
    "markdown_code", "markdown_text", "printable", "printable_lines",
]  # fmt: skip

# What spreadsheets begin a formula with, if only after a separator.
FORMULA = re.compile(r"\s*[=+\-@\t\r\n|%]")
# A bracket is a link's only before another one, or a colon.
MARKDOWN = re.compile(r"([\\`*#~|$]|\](?=[\[(:])|(?<!\w)_|_(?!\w))")
# What is made a link without being marked as one.
LINKS = {"://": "&#58;//", "www.": "www&#46;"}
UNESCAPED_PIPE = re.compile(r"(?<!\\)((?:\\\\)*)\|")


def printable(text: object) -> str:
    """One line for a terminal: spaces for line breaks, escapes for what moves it."""
    return "".join(map(_visible, " ".join(str(text).split())))


def printable_lines(text: str) -> str:
    """Lines for a terminal, each with escapes for what moves it."""
    return "\n".join("".join(map(_visible, line)) for line in text.split("\n"))


def json_printable(text: str) -> str:
    """JSON with escapes for whatever a terminal or an encoding cannot take."""
    return "".join(c if _is_shown(c) or c == "\n" else _json(c) for c in text)


def html_text(text: str) -> str:
    """Text for an element or an attribute of HTML; line breaks and tabs are kept."""
    kept = (c if _is_shown(c) or c in "\n\t" else "\ufffd" for c in str(text))
    return escape("".join(kept), quote=True)


def markdown_text(text: object) -> str:
    """Text inside a line of Markdown: no markup, no HTML, no link comes of it."""
    line = escape(printable(text), quote=False)
    for sign, entity in LINKS.items():
        line = re.sub(re.escape(sign), entity, line, flags=re.I)
    return MARKDOWN.sub(r"\\\1", line)


def markdown_code(text: str) -> str:
    """A span of code that shows a line of text as it is, also in a table."""
    line = printable(text)
    if not line:
        return ""
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    # A space on both sides is no part of it, and parts it from the fence.
    room = " " if "`" in (line[0], line[-1]) else ""
    return f"{fence}{room}{line}{room}{fence}"


def markdown_cell(written: str) -> str:
    """Markdown as a cell of a table: on one line, and in one column."""
    return UNESCAPED_PIPE.sub(r"\1\\|", printable(written))


def csv_cell(text: str) -> str:
    """Text that spreadsheets take for text: an apostrophe before what else computes."""
    return f"'{text}" if FORMULA.match(text) else text


def escaped(character: str) -> str:
    """The escape that Python writes for a character."""
    return character.encode("unicode_escape").decode("ascii")


def _visible(character: str) -> str:
    """The character, or an escape where a terminal would do something at it."""
    return character if _is_shown(character) else escaped(character)


def _is_shown(character: str) -> bool:
    """Whether it is a sign or a space; Persian and emoji need the two joiners."""
    return (
        character.isprintable()
        or character in "\u200c\u200d"
        or unicodedata.category(character) == "Zs"
    )


def _json(character: str) -> str:
    """The escape that JSON has for a character."""
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
