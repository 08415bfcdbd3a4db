# SPDX-License-Identifier: Apache-2.0
"""Settings of the whole process that are changed for a while, by several at once."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

__all__ = ["SharedChange"]


class SharedChange:
    """A change that the first one to need it makes, and the last one takes back.

    Threads enter and leave in any order, so none can put back what it found.

    Parameters
    ----------
    make : callable
        Makes the change; returns what takes it back.
    """

    def __init__(self, make: Callable[[], Callable[[], object]]) -> None:
        self._make = make
        self._inside: list[None] = []
        self._undo: list[Callable[[], object]] = []

    def __enter__(self) -> None:
        # No lock: a process forked meanwhile would inherit it locked.
        self._inside.append(None)
        if len(self._inside) == 1:
            self._undo.append(self._make())

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._inside.pop()
        if not self._inside and self._undo:
            self._undo.pop()()
