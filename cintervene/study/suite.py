# SPDX-License-Identifier: Apache-2.0
"""Requests of one kind, and the ways in which they are made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cintervene.attacks import Attack, Request
from cintervene.attacks.base import Checkpoint

__all__ = ["InTurn", "Suite"]


@dataclass(frozen=True, slots=True)
class Suite:
    """Requests of one kind, and the ways in which they are made.

    Attributes
    ----------
    name : {"harmful", "safe", "benign"}
    requests : sequence of Request
    attacks : sequence of Attack
    topics : mapping of str to str
        What each request is about, by its id.
    """

    name: str
    requests: Sequence[Request]
    attacks: Sequence[Attack]
    topics: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class InTurn:
    """Several attacks as one, of which each request meets another.

    Attributes
    ----------
    name : str
    attacks : sequence of Attack
        At least one.
    """

    name: str
    attacks: Sequence[Attack]

    @property
    def options(self) -> dict[str, Any]:
        """Those of the attacks, in their order."""
        return {"attacks": [[one.name, one.options] for one in self.attacks]}

    @property
    def steps(self) -> int:
        """The budget of the attack that takes longest."""
        return max(one.steps for one in self.attacks)

    def cases(
        self, request: Request, seed: int, checkpoint: Checkpoint
    ) -> Sequence[AttackCase]:
        """Make the test cases of one request; see `Attack.cases`."""
        turn = (seed + sum(request.id.encode())) % len(self.attacks)
        return self.attacks[turn].cases(request, seed, checkpoint)
