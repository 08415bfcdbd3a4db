# SPDX-License-Identifier: Apache-2.0
"""Requests of one kind, and the attacks that are made with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cintervene.attacks import Attack, AttackCase, Request
from cintervene.attacks.base import Checkpoint

__all__ = ["InTurn", "Suite"]


@dataclass(frozen=True, slots=True)
class Suite:
    """Requests of one kind, and the attacks that are made with them.

    Attributes
    ----------
    name : {"harmful", "safe", "benign"}
    requests : sequence of Request
    attacks : sequence of Attack
    topics : mapping of str to str
        The topic of each request, by its id.
    """

    name: str
    requests: Sequence[Request]
    attacks: Sequence[Attack]
    topics: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class InTurn:
    """Several attacks as one, which take turns from request to request.

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
        """The options of the attacks, in their order."""
        return {"attacks": [[one.name, one.options] for one in self.attacks]}

    @property
    def steps(self) -> int:
        """The largest budget of the attacks."""
        return max(one.steps for one in self.attacks)

    def cases(
        self, request: Request, seed: int, checkpoint: Checkpoint
    ) -> Sequence[AttackCase]:
        """Make the test cases of one request; see `Attack.cases`."""
        turn = (seed + sum(request.id.encode())) % len(self.attacks)
        return self.attacks[turn].cases(request, seed, checkpoint)
