# SPDX-License-Identifier: Apache-2.0
"""How work that takes long reports how far it has come."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

__all__ = ["Progress", "Step", "counting", "one_step", "silent"]

# Within a phase: called with steps that have been done since the last call.
Step = Callable[[int], None]


class Progress(Protocol):
    """What long functions call as they go.

    It may raise: KeyboardInterrupt, say, ends the work, and what was changed
    meanwhile is put back.
    """

    def __call__(self, phase: str, done: int, total: int) -> None:
        """Report how far the work has come.

        Parameters
        ----------
        phase : str
            What is being done, in a word or two. Another phase ends the one before.
        done, total : int
            Steps of this phase that are done, and all of them. The first call of a
            phase has `done` 0, the last one `done` equal to `total`.
        """


def counting(progress: Progress, phase: str, total: int) -> Step:
    """Begin a phase; call what is returned with steps that have been done since."""
    done = 0

    def step(steps: int) -> None:
        nonlocal done
        done += steps
        progress(phase, done, total)

    step(0)
    return step


@contextmanager
def one_step(progress: Progress, phase: str) -> Iterator[None]:
    """A phase of a single step, which ends with the block."""
    progress(phase, 0, 1)
    yield
    progress(phase, 1, 1)


def silent(phase: str, done: int, total: int) -> None:
    """Report nothing: the default of functions that take a `Progress`."""
