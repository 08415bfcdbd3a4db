# SPDX-License-Identifier: Apache-2.0
"""Lines that somebody types, or that a pipe or a file holds."""

from __future__ import annotations

import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper

__all__ = ["at_terminal", "prepare_reading", "read_line", "unechoed"]


def at_terminal() -> bool:
    """Whether somebody sits there who reads and types."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def prepare_reading() -> None:
    """Let lines be edited at a terminal, and read bytes that are no text."""
    if at_terminal():
        with suppress(ImportError):
            # It only has to be loaded for `input` to use it.
            import readline  # noqa: F401
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")


def read_line(prompt: str) -> str | None:
    """The next line; None at the end. The prompt is shown at a terminal only."""
    sys.stdout.flush()
    try:
        return input(prompt if at_terminal() else "")
    except EOFError:
        if at_terminal():
            print()
        return None


@contextmanager
def unechoed() -> Iterator[None]:
    """Keep what is typed meanwhile off the screen; it is read afterwards.

    The cursor would not be where it was left.
    """
    if not at_terminal():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    quiet = termios.tcgetattr(sys.stdin)
    quiet[3] &= ~termios.ECHO
    termios.tcsetattr(sys.stdin, termios.TCSADRAIN, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
