# SPDX-License-Identifier: Apache-2.0
"""All changes that a method measured on the tuning split, not only the chosen one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from cintervene.intervention.intervention import Intervention

__all__ = ["FrontPoint", "kept_front", "offer"]


@dataclass(frozen=True, eq=False)
class FrontPoint:
    """A change that can be had instead of the chosen one.

    Attributes
    ----------
    measures : mapping
        As an intervention has it among its metrics, in `sweep`.
    within_limits : bool
    make : callable
        Returns the intervention.
    """

    measures: Mapping[str, Any]
    within_limits: bool
    make: Callable[[], Intervention]

    @property
    def chosen(self) -> bool:
        """Whether the method chose it."""
        return bool(self.measures["chosen"])


_kept: ContextVar[list[FrontPoint] | None] = ContextVar("kept", default=None)


@contextmanager
def kept_front() -> Iterator[list[FrontPoint]]:
    """Yield a list in which are, after a call of `defend`, the changes that it tried.

    It stays empty where a method measures none. What they are made of is kept as long
    as the list is, which is why nobody else keeps it.
    """
    points: list[FrontPoint] = []
    token = _kept.set(points)
    try:
        yield points
    finally:
        _kept.reset(token)


def offer(points: Sequence[FrontPoint]) -> None:
    """Hand over what was tried to whoever keeps it."""
    kept = _kept.get()
    if kept is not None:
        kept[:] = points
