# SPDX-License-Identifier: Apache-2.0
"""The menu after a defence: what was tried, to be tried out and saved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from cintervene.cli.common.console import Console, say
from cintervene.cli.common.failures import Exit, failure, with_flags
from cintervene.cli.common.results import sweep_rows
from cintervene.cli.dialogue.reading import read_line
from cintervene.intervention.acceptance import crossed
from cintervene.intervention.intervention import Intervention
from cintervene.methods.common.front import FrontPoint
from cintervene.utils.homes import expanded

__all__ = ["Menu"]

TITLE = "effect against drift, on texts set aside:"
CHOICES = "t tries it in a chat, s saves it, q ends"
OTHERS = "a number takes another one, "


class Menu:
    """Lets somebody at a terminal choose among changes, try them, and save them.

    Parameters
    ----------
    points : sequence of FrontPoint
        All that there is; at least one.
    out : Path
        The directory that the defence was asked for.
    saved : bool
        Whether the chosen change is in there.
    flags : collection of str
        Those of the command, for messages.
    try_out : callable
        Begins a chat with an intervention.
    save : callable
        Writes an intervention, the number of its point, to a new directory; returns
        the exit code that it earns.
    console : Console
    """

    def __init__(
        self,
        points: Sequence[FrontPoint],
        out: Path,
        saved: bool,
        *,
        flags: frozenset[str],
        try_out: Callable[[Intervention], None],
        save: Callable[[Intervention, int, Path], Exit],
        console: Console,
    ) -> None:
        self._points, self._out, self._flags = points, out, flags
        self._try, self._save, self._console = try_out, save, console
        self._at = next(i for i, point in enumerate(points) if point.chosen)
        self._chosen = self._at
        self._numbers = [str(at) for at in range(1, len(points) + 1)]
        self._made: dict[int, Intervention] = {}
        self._places: dict[int, Path] = {self._at: out} if saved else {}

    def run(self) -> Exit | None:
        """Ask until somebody ends it; return what the last change that was saved earns.

        None where none was.
        """
        code = None
        self._show()
        while True:
            try:
                answer = self._read()
                if answer in ("q", "quit", "/quit"):
                    return code
                code = self._obey(answer) or code
            except KeyboardInterrupt:
                print()
                self._console.note("interrupted; nothing is left half written")
            except Exception as error:
                known = failure(error)
                if known is None:
                    raise
                line = with_flags(known[1], self._flags)
                self._console.note(f"cintervene: {line}")

    def _read(self) -> str:
        """What is typed, or that it ends where Ctrl-C or Ctrl-D says so."""
        what = f"point {self._at + 1}" if len(self._points) > 1 else "change"
        try:
            line = read_line(f"{what}> ")
        except KeyboardInterrupt:
            print()
            line = None
        return "q" if line is None else line.strip().lower()

    def _obey(self, answer: str) -> Exit | None:
        if answer in ("t", "try"):
            self._try(self._intervention())
            self._show()
        elif answer in ("s", "save"):
            return self._store()
        elif answer in self._numbers:
            self._at = self._numbers.index(answer)
            self._show()
        else:
            say(self._choices())
        return None

    def _intervention(self) -> Intervention:
        if self._at not in self._made:
            self._made[self._at] = self._points[self._at].make()
        return self._made[self._at]

    def _store(self) -> Exit | None:
        """Save the change, and ask first where to, and whether beyond its limits."""
        intervention = self._intervention()
        reasons = crossed(intervention)
        if reasons is not None:
            say(with_flags(reasons, self._flags))
            answer = read_line("it crosses its limits; save it all the same? [y/N] ")
            if (answer or "").strip().lower() not in ("y", "yes"):
                return None
        place = self._place()
        if place is None:
            return None
        code = self._save(intervention, self._at + 1, place)
        self._places[self._at] = place
        self._show()
        return code

    def _place(self) -> Path | None:
        """A directory; that of the defence itself if nothing is in it yet."""
        default = self._out
        if self._out in self._places.values():
            default = self._out.with_name(f"{self._out.name}-{self._at + 1}")
        answer = read_line(f"new directory [{default}] ")
        if answer is None:
            return None
        return expanded(answer.strip()) if answer.strip() else default

    def _show(self) -> None:
        """Print the points, those that were saved among them, and what can be done."""
        head, *rows = sweep_rows([point.measures for point in self._points])
        say(f"\n{TITLE}\n\n       {head}" if head else "")
        for at, row in enumerate(rows):
            mark = "*" if at == self._at else " "
            say(f"{mark} {at + 1:3d}  {row}{self._remarks(at)}")
        say(f"\n{self._choices()}")

    def _remarks(self, at: int) -> str:
        remarks = [
            *(["chosen"] if at == self._chosen else []),
            *(["beyond limits"] if not self._points[at].within_limits else []),
            *([f"in {self._places[at]}"] if at in self._places else []),
        ]
        return f"  {', '.join(remarks)}" if remarks else ""

    def _choices(self) -> str:
        return (OTHERS if len(self._points) > 1 else "") + CHOICES
