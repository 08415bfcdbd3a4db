# SPDX-License-Identifier: Apache-2.0
"""Phases of a measurement: how far they are, and how long they took."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cintervene.utils.clock import Clock
from cintervene.utils.progress import (
    Progress,
    counting,
)

__all__ = ["Phases", "Step"]

Step = Callable[[int], None]


class Phases:
    """Tells a `Progress` and keeps the seconds of each phase.

    Attributes
    ----------
    seconds : dict of str to float
    """

    def __init__(self, progress: Progress) -> None:
        self._progress, self._clock = progress, Clock()
        self.seconds = self._clock.seconds

    @contextmanager
    def phase(self, name: str, total: int) -> Iterator[Step]:
        """Time the block, which calls what it is given with the steps that are done."""
        with self._clock.phase(name):
            yield counting(self._progress, name, total)
