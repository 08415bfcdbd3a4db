# SPDX-License-Identifier: Apache-2.0
"""Attacks that say something before the request: a system prompt, or earlier turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cintervene import data
from cintervene.attacks.base import AttackCase, Checkpoint, Request
from cintervene.attacks.families import check_family, places_in_turn

__all__ = ["Conversation", "conversations"]


@dataclass(frozen=True)
class Conversation:
    """Make the request as it is, in a conversation that has begun.

    Attributes
    ----------
    family : str
        One of `conversations()`.
    count : int, optional
        Beginnings per request, which take turns by its id and the seed; default: all.
    """

    family: str
    count: int | None = None
    steps: int = 1

    def __post_init__(self) -> None:
        check_family(self.family, conversations())

    @property
    def name(self) -> str:
        """The family."""
        return self.family

    @property
    def options(self) -> dict[str, Any]:
        """How many beginnings, and which."""
        return {"count": self.count, "turns": self._beginnings}

    @property
    def _beginnings(self) -> list[list[list[str]]]:
        return data.conversations()[self.family]

    def cases(
        self, request: Request, seed: int, checkpoint: Checkpoint
    ) -> Sequence[AttackCase]:
        """Make a test case for each beginning; see `Attack.cases`."""
        known = self._beginnings
        return [
            AttackCase(
                request.id,
                request.text,
                self.name,
                request.text,
                details={"beginning": at},
                turns=tuple((role, text) for role, text in known[at]),
            )
            for at in places_in_turn(request, seed, len(known), self.count)
        ]


def conversations() -> tuple[str, ...]:
    """Kinds of beginnings in ``cintervene/data/conversations.json``."""
    return tuple(data.conversations())
