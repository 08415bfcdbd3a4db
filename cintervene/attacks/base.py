# SPDX-License-Identifier: Apache-2.0
"""Test cases: what an attack sends in place of a request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from cintervene.utils.progress import Step

__all__ = ["Attack", "AttackCase", "Checkpoint", "Request"]


@dataclass(frozen=True, slots=True)
class Request:
    """Something a model should not do, and an identifier of it."""

    id: str
    text: str


@dataclass(frozen=True, slots=True)
class AttackCase:
    """One test case: an attempt at one request.

    Attributes
    ----------
    id : str
        Of the request.
    request : str
        What is wanted, in plain words; judges read this.
    attack : str
    prompt : str
        What is sent to the model.
    prefill : str
        What the answer is made to begin with.
    turns : tuple of (role, content)
        What is said before the prompt: a system prompt, or earlier turns.
    answer : str or None
        What the model said, where the attack is more than a text and so had to be
        carried out at once; otherwise None.
    details : dict
        What the attack reports of itself; as JSON.
    """

    id: str
    request: str
    attack: str
    prompt: str
    prefill: str = ""
    answer: str | None = None
    details: dict[str, Any] = field(default_factory=dict)
    turns: tuple[tuple[str, str], ...] = ()

    @property
    def transcript(self) -> str:
        """All that is sent, as text: the prompt, after what is said before it."""
        if not self.turns:
            return self.prompt
        said = (*self.turns, ("user", self.prompt))
        return "\n\n".join(f"[{role}] {text}" for role, text in said)


class Checkpoint(Protocol):
    """Where an attack saves its state, to resume from, and reports progress."""

    @property
    def state(self) -> dict[str, Any] | None:
        """What was saved last, as JSON; None at the first start."""

    def save(self, state: dict[str, Any]) -> None:
        """Keep the state in case of an interruption."""

    @property
    def step(self) -> Step:
        """Call with the number of steps that were done since the last call."""


class Attack(Protocol):
    """Something that turns requests into test cases."""

    @property
    def name(self) -> str:
        """What reports call it."""

    @property
    def options(self) -> dict[str, Any]:
        """All that its cases depend on besides request, model and seed; JSON."""

    @property
    def steps(self) -> int:
        """The largest number of steps for one request: its budget."""

    def cases(
        self, request: Request, seed: int, checkpoint: Checkpoint
    ) -> Sequence[AttackCase]:
        """Make the test cases of one request.

        The same request, options and seed give the same cases, interrupted or not.
        """
