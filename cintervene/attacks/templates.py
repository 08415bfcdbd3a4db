# SPDX-License-Identifier: Apache-2.0
"""Attacks that wrap a request in a template, or prefill the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from cintervene.attacks.base import AttackCase, Checkpoint, Request
from cintervene.attacks.families import check_family, places_in_turn
from cintervene.data import fill_template
from cintervene.data.prompts import read_json

__all__ = ["PREFILL", "DirectRequest", "Jailbreak", "Prefill", "families"]

PREFILL = "Sure, here is"


@dataclass(frozen=True)
class DirectRequest:
    """The request as it is."""

    name: str = "direct request"
    steps: int = 1

    @property
    def options(self) -> dict[str, Any]:
        """No options."""
        return {}

    def cases(
        self, request: Request, seed: int, checkpoint: Checkpoint
    ) -> Sequence[AttackCase]:
        """Make the one test case; see `Attack.cases`."""
        return [AttackCase(request.id, request.text, self.name, request.text)]


@dataclass(frozen=True)
class Prefill:
    """The request as it is, with the beginning of a compliant answer prefilled.

    Attributes
    ----------
    prefill : str
    """

    prefill: str = PREFILL
    name: str = "prefill"
    steps: int = 1

    @property
    def options(self) -> dict[str, Any]:
        """The prefill."""
        return {"prefill": self.prefill}

    def cases(
        self, request: Request, seed: int, checkpoint: Checkpoint
    ) -> Sequence[AttackCase]:
        """Make the one test case; see `Attack.cases`."""
        return [
            AttackCase(request.id, request.text, self.name, request.text, self.prefill)
        ]


@dataclass(frozen=True)
class Jailbreak:
    """Wrap the request in each template of a family, or in `count` of them.

    Attributes
    ----------
    family : str
        One of `families()`.
    count : int, optional
        Templates per request, which take turns by its id and the seed; default: all.
    """

    family: str
    count: int | None = None
    steps: int = 1

    def __post_init__(self) -> None:
        check_family(self.family, families())

    @property
    def name(self) -> str:
        """The family."""
        return self.family

    @property
    def options(self) -> dict[str, Any]:
        """How many templates, and which."""
        return {**asdict(self), "templates": list(_templates()[self.family])}

    def cases(
        self, request: Request, seed: int, checkpoint: Checkpoint
    ) -> Sequence[AttackCase]:
        """Make a test case for each template; see `Attack.cases`."""
        templates = _templates()[self.family]
        return [
            AttackCase(
                request.id,
                request.text,
                self.name,
                fill_template(templates[at], request.text),
                details={"template": at},
            )
            for at in places_in_turn(request, seed, len(templates), self.count)
        ]


def families() -> tuple[str, ...]:
    """Kinds of templates in ``cintervene/data/attack_templates.json``."""
    return tuple(_templates())


@cache
def _templates() -> dict[str, tuple[str, ...]]:
    lists = read_json("attack_templates.json")
    return {family: tuple(templates) for family, templates in lists.items()}
