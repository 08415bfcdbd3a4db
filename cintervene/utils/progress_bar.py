# SPDX-License-Identifier: Apache-2.0
"""Progress that is shown, with the time left: bars where there can be any."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

from cintervene.utils.escaping import printable

__all__ = ["ProgressBar"]

# Between two lines of one phase, where there is no terminal.
LINE_SECONDS = 15.0
# Phases that end sooner have no bar in a notebook, where each would stay.
SHORT_SECONDS = 1.0
BAR = "{desc:<28} {percentage:3.0f}% |{bar}| {elapsed}, {remaining} left"


class ProgressBar:
    """Shows how far work has come: give it as `progress=` to what takes one.

    A bar of tqdm for each phase in terminals and notebooks, lines elsewhere.

    Parameters
    ----------
    stream : text stream, optional
        Where to write; stderr by default.
    clock : callable, optional
        Returns seconds.

    Examples
    --------
    ::

        ci.defend(model, tokenizer, forbid=words, progress=ci.ProgressBar())
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._notebook = stream is None and _in_notebook()
        self._terminal = self._stream.isatty()
        self._bar: Any = None
        self._phase = ""
        self._begun = self._said = 0.0

    def __call__(self, phase: str, done: int, total: int) -> None:
        """Show how far a phase has come; see `Progress`."""
        phase = printable(phase)
        if phase != self._phase:
            self.close()
            self._phase = phase
            self._begun = self._said = self._clock()
            if not (self._terminal or self._notebook):
                self._write(f"{phase} ...")
        if self._terminal or self._notebook:
            self._draw(done, total)
        else:
            self._tell(done, total)
        if done >= total:
            self.close()

    def close(self) -> None:
        """End the phase that is shown; what follows begins on a line of its own."""
        if self._bar is not None:
            self._bar.close()
        self._bar = None
        self._phase = ""

    def _draw(self, done: int, total: int) -> None:
        if self._bar is None:
            self._bar = self._begin(total)
        self._bar.total = total
        self._bar.update(done - self._bar.n)

    def _begin(self, total: int) -> Any:
        options = {"total": total, "desc": self._phase, "bar_format": BAR}
        if self._notebook:
            from tqdm.auto import tqdm as notebook_bar

            return notebook_bar(**options, delay=SHORT_SECONDS)
        from tqdm import tqdm

        return tqdm(**options, file=self._stream)

    def _tell(self, done: int, total: int) -> None:
        now = self._clock()
        seconds = now - self._begun
        if done >= total:
            line = f"{self._phase}: done in {_duration(seconds)}"
        elif done > 0 and now - self._said >= LINE_SECONDS:
            left = seconds / done * (total - done)
            line = f"{self._phase}: {done} of {total}, {_duration(left)} left"
        else:
            return
        self._said = now
        self._write(line)

    def _write(self, line: str) -> None:
        self._stream.write(f"{line}\n")
        self._stream.flush()


def _duration(seconds: float) -> str:
    """Write a length of time as people say it."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def _in_notebook() -> bool:
    """Whether the process is a kernel that a notebook talks to."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and "IPKernelApp" in shell.config
