# SPDX-License-Identifier: Apache-2.0
"""What came of a sweep, and its table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap

from cintervene.evaluate.report.wording import interval, number
from cintervene.study.sweeps.rows import SweepRow, front_of

__all__ = ["COLUMNS", "ON_FRONT", "Column", "Sweep"]

ON_FRONT = "*"
LINE = 88


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the table.

    Attributes
    ----------
    title : str
    text : callable
        What it says of a row.
    right : bool
        Whether it holds numbers.
    """

    title: str
    text: Callable[[SweepRow], str]
    right: bool = True


def _rise(row: SweepRow) -> str:
    return "" if row.benign is None else f"{100 * (row.benign.value - 1):+.1f}%"


COLUMNS = (
    Column("words", lambda row: row.words, False),
    Column("method", lambda row: row.method, False),
    Column("layers", lambda row: row.layers, False),
    Column("strength", lambda row: row.strength),
    Column("first, x", lambda row: number(row.first.value)),
    Column("later, x", lambda row: number(row.later.value)),
    Column("tenth, x", lambda row: number(row.tenth)),
    Column("benign", _rise),
    Column("KL, nats", lambda row: number(row.kl.value)),
    Column("95%", lambda row: interval(row.kl)),
    Column("said", lambda row: f"{row.said_before:.0%} > {row.said_after:.0%}"),
    Column("changed", lambda row: row.changed, False),
    Column("goals", lambda row: "reached" if row.goals_reached else "missed", False),
    Column("seconds", lambda row: f"{row.seconds:.0f}"),
)


@dataclass(frozen=True)
class Sweep:
    """What came of a sweep.

    Attributes
    ----------
    directory : Path
        Where everything is.
    split : str
        Of the data that it was measured on.
    rows : list of SweepRow
        One for each setting: by words, method, layers and strength.
    """

    directory: Path
    split: str
    rows: list[SweepRow]

    @property
    def front(self) -> list[SweepRow]:
        """The rows than which no other with the same words has more effect at less KL.

        Effect is the smaller factor of the forbidden words' perplexity: that where
        answers start with them, or where they say them later.
        """
        return front_of(self.rows)

    def __str__(self) -> str:
        """The table, a star at each row on the front."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        cells = [
            [column.title for column in COLUMNS],
            *([column.text(row) for column in COLUMNS] for row in self.rows),
        ]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        front = self.front
        marks = [" ", *(ON_FRONT if row in front else " " for row in self.rows)]
        for mark, line in zip(marks, cells, strict=True):
            shown = [
                text.rjust(width) if column.right else text.ljust(width)
                for text, width, column in zip(line, widths, COLUMNS, strict=True)
            ]
            yield f"{mark} {'  '.join(shown)}".rstrip()
        for note in self.notes():
            yield from wrap(note, LINE, break_on_hyphens=False)

    def notes(self) -> Iterator[str]:
        """What has to be known of the table."""
        yield (
            f"{ON_FRONT} on the front: no other setting with these words has more "
            "effect (the smaller of first and later) at less KL."
        )
        yield (
            "first, later: how many times the perplexity of the forbidden words became "
            "what it was, where an answer starts with them and where it says them "
            "later. tenth: a tenth of the words rose less. benign: rise of other "
            "words' perplexity. KL: how far everyday answers moved, a token. said: "
            "requests for a forbidden word whose answer says it, before and after. "
            f"Measured on the package's {self.split} split."
        )
        if self.split == "tune":
            yield (
                "What is chosen by this table is to be reported on other data: "
                "cintervene evaluate measures a change on held-out ones."
            )
        for names in _same(self.rows):
            yield f"The same change: {', '.join(names)}."


def _same(rows: Sequence[SweepRow]) -> list[list[str]]:
    """Names of settings that came to one change."""
    groups: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        groups.setdefault((row.words, row.digest), []).append(row.name)
    return [names for names in groups.values() if len(names) > 1]
