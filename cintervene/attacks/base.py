# SPDX-License-Identifier: Apache-2.0
"""Test cases: what an attack sends in place of a request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

__all__ = ["Attack", "Case", "Notes", "Request"]


@dataclass(frozen=True, slots=True)
class Request:
    """Something a model should not do, and what to call it."""

    id: str
    text: str


@dataclass(frozen=True, slots=True)
class Case:
    """One attempt at one request.

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


class Notes(Protocol):
    """Where an attack leaves what it needs to go on after an interruption."""

    @property
    def state(self) -> dict[str, Any] | None:
        """What was saved last, as JSON; None at the first start."""

    def save(self, state: dict[str, Any]) -> None:
        """Keep the state in case of an interruption."""

    @property
    def step(self) -> Callable[[int], None]:
        """Call with the number of steps that were done since."""


class Attack(Protocol):
    """Something that turns requests into test cases."""

    @property
    def name(self) -> str:
        """What reports call it."""

    @property
    def options(self) -> dict[str, Any]:
        """Everything that its cases depend on beside request, model and seed; JSON."""

    @property
    def steps(self) -> int:
        """Steps that one request takes at most: its budget."""

    def cases(self, request: Request, seed: int, notes: Notes) -> Sequence[Case]:
        """Make the test cases of one request.

        The same request, options and seed give the same cases, interrupted or not.
        """
