# SPDX-License-Identifier: Apache-2.0
"""What reports are made of, for any format.

Text is plain: a pair of backticks makes code, and nothing else in it is markup. So
what models and users wrote can stand anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = [
    "Block", "Bullets", "Cell", "Code", "Exchange", "Folded", "Mark", "Picture",
    "Program", "Reply", "Section", "Table", "Warned",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Code:
    """Text of a cell that is shown as it is, such as a name."""

    text: str


@dataclass(frozen=True, slots=True)
class Mark:
    """A verdict in a word, and whether it is a good one."""

    text: str
    tone: Literal["good", "bad", "dull"]


Cell: TypeAlias = str | Code | Mark


@dataclass(frozen=True, slots=True)
class Table:
    """Text in cells; columns whose index is in `right` hold numbers."""

    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    right: Sequence[int] = ()
    title: str = ""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture by name, and its caption."""

    name: str
    caption: str


@dataclass(frozen=True, slots=True)
class Bullets:
    """Sentences that do not make a paragraph."""

    points: Sequence[str]


@dataclass(frozen=True, slots=True)
class Program:
    """Lines for a shell, or in another language."""

    text: str
    language: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """What somebody answered, and the verdict on it if there is one."""

    who: str
    text: str
    mark: Mark | None = None


@dataclass(frozen=True, slots=True)
class Exchange:
    """What was sent to several, with headings, and what each answered.

    With `about` a page shows only that and the marks until it is asked for more.
    """

    asked: Sequence[tuple[str, str]]
    replies: Sequence[Reply]
    about: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Warned:
    """What is to be read before anything else."""

    text: str


@dataclass(frozen=True, slots=True)
class Folded:
    """A long table that pages show on request, and other formats at once."""

    summary: str
    table: Table


Block: TypeAlias = (
    str | Table | Picture | Bullets | Program | Exchange | Warned | Folded
)


@dataclass(frozen=True, slots=True)
class Section:
    """Blocks under a title."""

    title: str
    blocks: Sequence[Block]
