# SPDX-License-Identifier: Apache-2.0
"""Answers as they are written: one behind the other, or in columns on a terminal."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Protocol, TextIO

from cintervene.cli.dialogue.wrapping import harmless, padded, wrapped

if TYPE_CHECKING:
    from cintervene.cli.dialogue.sides import Answer

__all__ = ["Columns", "Display", "Lines", "Unseen", "display_for"]

# From so many cells on two columns are easy to read.
WIDE = 100
BAR = " \u2502 "
PLAIN_BAR = " | "


class Display(Protocol):
    """Shows answers while they are written.

    Attributes
    ----------
    at_once : bool
        Whether it shows several that are written by turns.
    """

    at_once: bool

    def begin(self, titles: Sequence[str]) -> None:
        """Make room for answers of these titles."""

    def show(self, answers: Mapping[str, Answer]) -> None:
        """Show what is new in answers, by their titles."""

    def end(self) -> None:
        """What follows begins on a line of its own."""


class Lines:
    """One answer behind the other, each below its title if it has one."""

    at_once = False

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._shown: dict[str, int] = {}

    def begin(self, titles: Sequence[str]) -> None:
        """See `Display`."""
        self._shown = {}

    def show(self, answers: Mapping[str, Answer]) -> None:
        """See `Display`."""
        for title, answer in answers.items():
            if title not in self._shown:
                self._shown[title] = 0
                self._write(f"{title}:\n" if title else "")
            text = harmless(answer.text)
            self._write(text[self._shown[title] :])
            self._shown[title] = max(len(text), self._shown[title])
            if answer.done:
                self._write("\n" if text.endswith("\n") else "\n\n")

    def end(self) -> None:
        """See `Display`."""

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


class Columns:
    """Answers beside each other, on a terminal that can move its cursor.

    A row that is finished on every side is never touched again, so it may scroll away.
    Of the others no more are shown than the screen has.
    """

    at_once = True

    def __init__(self, stream: TextIO, width: int, height: int, sides: int = 2) -> None:
        self._stream, self._height = stream, height
        self._bar = BAR if _can_write(stream, BAR) else PLAIN_BAR
        self._width = (width - 1 - len(self._bar) * (sides - 1)) // sides
        self._finished = self._painted = 0

    def begin(self, titles: Sequence[str]) -> None:
        """See `Display`."""
        self._finished = self._painted = 0
        self._stream.write(self._row(titles) + "\n")

    def show(self, answers: Mapping[str, Answer]) -> None:
        """See `Display`."""
        columns = {
            title: wrapped(harmless(one.text).rstrip("\n"), self._width)
            for title, one in answers.items()
        }
        rows = [self._row(row) for row in zip_longest(*columns.values(), fillvalue="")]
        # Of what is being written the last line may change.
        stable = [
            len(columns[title]) - 1 for title, one in answers.items() if not one.done
        ]
        finished = min(stable, default=len(rows))
        # Rows that left the screen cannot be painted again.
        last = self._finished + self._height - 1 if stable else len(rows)
        self._paint(rows[self._finished : last])
        done = max(0, min(finished, last, len(rows)) - self._finished)
        self._finished += done
        self._painted -= done

    def end(self) -> None:
        """See `Display`."""
        self._stream.write("\n")
        self._stream.flush()

    def _paint(self, rows: Sequence[str]) -> None:
        """Put rows in place of those that were not finished."""
        anew = f"\r\x1b[{self._painted}A\x1b[J" if self._painted else ""
        self._stream.write(anew + "".join(f"{row}\n" for row in rows))
        self._stream.flush()
        self._painted = len(rows)

    def _row(self, texts: Sequence[str]) -> str:
        return self._bar.join(padded(text, self._width) for text in texts).rstrip()


class Unseen:
    """Shows nothing."""

    at_once = False

    def begin(self, titles: Sequence[str]) -> None:
        """See `Display`."""

    def show(self, answers: Mapping[str, Answer]) -> None:
        """See `Display`."""

    def end(self) -> None:
        """See `Display`."""


def display_for(stream: TextIO, sides: int) -> Display:
    """Columns where there is room for several sides, else lines."""
    if sides > 1 and stream.isatty() and os.environ.get("TERM") not in (None, "dumb"):
        width, height = shutil.get_terminal_size()
        if width >= WIDE:
            return Columns(stream, width, height, sides)
    return Lines(stream)


def _can_write(stream: TextIO, text: str) -> bool:
    try:
        text.encode(stream.encoding or "ascii")
    except UnicodeError:
        return False
    return True
