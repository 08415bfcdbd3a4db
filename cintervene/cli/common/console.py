# SPDX-License-Identifier: Apache-2.0
"""What a user sees: progress on stderr, and results for programs on stdout."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, TextIO

from cintervene.utils.escaping import json_printable, printable, printable_lines
from cintervene.utils.json_ready import json_ready

__all__ = ["Console", "duration", "print_json", "say"]

# Between two lines of one phase, where there is no terminal.
LINE_SECONDS = 15.0
BAR = "{desc:<28} {percentage:3.0f}% |{bar:24}| {elapsed}, {remaining} left"


class Console:
    """A `Progress` that writes to a stream, with the time left.

    Bars on a terminal, lines elsewhere.

    Parameters
    ----------
    stream : text stream
        Usually stderr, so that results on stdout can be piped.
    clock : callable, optional
        Returns seconds.
    """

    def __init__(
        self, stream: TextIO, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream
        self._clock = clock
        self._terminal = stream.isatty()
        self._bar: Any = None
        self._phase = ""
        self._begun = self._said = 0.0

    def __call__(self, phase: str, done: int, total: int) -> None:
        """Show how far a phase has come."""
        phase = printable(phase)
        if phase != self._phase:
            self.close()
            self._phase = phase
            self._begun = self._said = self._clock()
            if not self._terminal:
                print(f"{phase} ...", file=self._stream, flush=True)
        if self._terminal:
            self._draw(done, total)
        else:
            self._tell(done, total)
        if done >= total:
            self.close()

    def note(self, line: str) -> None:
        """Write a line of text of its own."""
        self.close()
        print(printable(line), file=self._stream, flush=True)

    def close(self) -> None:
        """End the phase that is shown; what follows begins on a line of its own."""
        if self._bar is not None:
            self._bar.close()
        self._bar = None
        self._phase = ""

    def _draw(self, done: int, total: int) -> None:
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(
                total=total, desc=self._phase, bar_format=BAR, file=self._stream
            )
        self._bar.total = total
        self._bar.update(done - self._bar.n)

    def _tell(self, done: int, total: int) -> None:
        now = self._clock()
        seconds = now - self._begun
        if done >= total:
            line = f"{self._phase}: done in {duration(seconds)}"
        elif done > 0 and now - self._said >= LINE_SECONDS:
            left = seconds / done * (total - done)
            line = f"{self._phase}: {done} of {total}, {duration(left)} left"
        else:
            return
        self._said = now
        print(line, file=self._stream, flush=True)


def duration(seconds: float) -> str:
    """Write a length of time as people say it."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def print_json(value: Any) -> None:
    """Print a value as one JSON document."""
    ready = json_ready(value)
    text = json.dumps(ready, ensure_ascii=False, indent=2, allow_nan=False)
    print(json_printable(text))


def say(text: object) -> None:
    """Print lines, in which nothing acts on the terminal."""
    print(printable_lines(str(text)))
