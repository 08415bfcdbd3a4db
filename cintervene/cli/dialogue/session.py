# SPDX-License-Identifier: Apache-2.0
"""A chat: questions and commands, and answers before and after a change."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from cintervene.cli.common.console import Console, say
from cintervene.cli.common.failures import failure
from cintervene.cli.dialogue.displays import Display
from cintervene.cli.dialogue.reading import at_terminal, read_line, unechoed
from cintervene.cli.dialogue.sides import Answer, Side, Sides
from cintervene.errors import ArgumentError
from cintervene.models.precision import quick_products
from cintervene.utils.signals import asked_to_stop

__all__ = ["Session"]

PROMPT = "> "
# By command: what it does. Those of the second table are about a change.
COMMANDS = {
    "/reset": "begin the conversation anew",
    "/help": "show this",
    "/quit": "end; so does Ctrl-D",
}
OF_A_CHANGE = {
    "/before": "only the model as it was answers",
    "/after": "only the changed model answers",
    "/both": "both answer",
    "/strength X": "make the change X times as strong, such as 0.5",
}
ALIASES = {"/base": "/before", "/exit": "/quit", "/?": "/help"}
HINTS = (
    "Ctrl-C ends an answer. A question that begins with a slash is given two: //.",
    "Each side has its own conversation, of what was said to it.",
)


class Session:
    """Reads lines until the end, and has them answered.

    Parameters
    ----------
    sides : Sides
    display : callable
        Makes what shows answers, for so many sides.
    console : Console
        For notes, beside the answers.

    Attributes
    ----------
    turns : list of dict
        What was asked and answered, by the names of the sides.
    """

    def __init__(
        self, sides: Sides, display: Callable[[int], Display], console: Console
    ) -> None:
        self.turns: list[dict[str, Any]] = []
        self._sides, self._display, self._console = sides, display, console
        self._shown = list(sides.all)
        self._told = False

    def run(self) -> None:
        """Answer until the lines end or somebody quits.

        Raises
        ------
        CinterveneError
            A command or a question cannot be met, and nobody is there to mend it.
        """
        if at_terminal():
            self._console.note(self._greeting())
        ended = False
        while not ended:
            try:
                line = read_line(PROMPT)
                ended = line is None or self._ends(line.strip())
            except KeyboardInterrupt:
                if not at_terminal():
                    raise
                print()
                self._console.note("/quit or Ctrl-D ends the chat")

    def _ends(self, line: str) -> bool:
        """Do what a line asks for; whether that is to end."""
        command, _, rest = line.partition(" ")
        command = ALIASES.get(command, command)
        if command == "/quit":
            return True
        try:
            if line.startswith("/") and not line.startswith("//"):
                self._obey(command, rest.strip())
            elif line:
                self._ask(line.removeprefix("/") if line.startswith("//") else line)
        except Exception as error:
            known = failure(error)
            if known is None or not at_terminal():
                raise
            self._console.note(f"cintervene: {known[1]}")
        return False

    def _greeting(self) -> str:
        names = " and ".join(side.name for side in self._sides.all if side.name)
        of = f", {names} the change" if names else ""
        return f"the model answers{of}; /help says what else there is"

    def _obey(self, command: str, rest: str) -> None:
        """Run a command.

        Raises
        ------
        ArgumentError
            There is none of that name, or it cannot be met.
        """
        changed = len(self._sides.all) > 1
        if command == "/help":
            self._help(changed)
        elif command == "/reset":
            self._sides.forget()
        elif command == "/strength" and changed:
            self._sides.set_strength(_factor(rest))
        elif command in ("/before", "/after", "/both") and changed:
            self._shown = [
                side
                for side in self._sides.all
                if command in ("/both", f"/{side.name}")
            ]
        else:
            raise ArgumentError(
                f"{command}: there is no such command here; /help lists them"
            )

    def _help(self, changed: bool) -> None:
        table = {**(OF_A_CHANGE if changed else {}), **COMMANDS}
        for command, about in table.items():
            say(f"{command:12} {about}")
        for hint in HINTS[: 2 if changed else 1]:
            say(hint)

    def _ask(self, question: str) -> None:
        """Have a question answered by the sides that are shown."""
        display = self._display(len(self._shown))
        titles = {self._title(side): side for side in self._shown}
        answers = {
            title: self._sides.ask(side, question) for title, side in titles.items()
        }
        display.begin(list(titles))
        groups = [answers] if display.at_once else [{t: a} for t, a in answers.items()]
        with quick_products():
            for group in groups:
                self._write(group, display)
        display.end()
        self.turns.append(
            {
                "question": question,
                "strength": self._sides.strength,
                **{
                    side.name or "answer": self._sides.keep(
                        side, question, answers[title]
                    )
                    for title, side in titles.items()
                },
            }
        )
        self._tell_of_length(list(answers.values()))

    def _write(self, answers: dict[str, Answer], display: Display) -> None:
        """Write answers by turns, a token each, until they end or Ctrl-C comes."""
        # Elsewhere Ctrl-C ends the program.
        gentle: AbstractContextManager[Callable[[], bool]]
        gentle = asked_to_stop() if at_terminal() else nullcontext(lambda: False)
        with gentle as stopped, unechoed():
            while not all(one.done for one in answers.values()):
                for one in answers.values():
                    if stopped():
                        one.stop()
                    if not one.done:
                        one.step()
                display.show(answers)

    def _title(self, side: Side) -> str:
        if side.name == "after" and self._sides.strength != 1:
            return f"{side.name}, strength {self._sides.strength:g}"
        return side.name

    def _tell_of_length(self, answers: Sequence[Answer]) -> None:
        """Say once why an answer ended in the middle."""
        most = self._sides.max_new_tokens
        if not self._told and any(len(one.tokens) >= most for one in answers):
            self._told = True
            self._console.note(
                f"(answers end after {most} tokens; --max-new-tokens takes another "
                "number)"
            )


def _factor(text: str) -> float:
    """The number behind ``/strength``.

    Raises
    ------
    ArgumentError
        It is none.
    """
    try:
        factor = float(text)
    except ValueError:
        factor = math.nan
    if not math.isfinite(factor):
        raise ArgumentError(f"/strength: got {text!r}, expected a number such as 0.5")
    return factor
