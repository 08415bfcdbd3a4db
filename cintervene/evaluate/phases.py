# SPDX-License-Identifier: Apache-2.0
"""Phases of a measurement: their progress, and the time they took."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cintervene.utils.clock import Clock
from cintervene.utils.progress import Progress, Step, counting

__all__ = ["Phases"]


class Phases:
    """Reports to a `Progress` and keeps the seconds of each phase.

    Attributes
    ----------
    seconds : dict of str to float
    """

    def __init__(self, progress: Progress) -> None:
        self._progress, self._clock = progress, Clock()
        self.seconds = self._clock.seconds

    @contextmanager
    def phase(self, name: str, total: int) -> Iterator[Step]:
        """Time the block, which gets a function to call with the steps it has done."""
        with self._clock.phase(name):
            yield counting(self._progress, name, total)
