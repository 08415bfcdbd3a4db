# SPDX-License-Identifier: Apache-2.0
"""Strengths that are tried on a tuning split, and the choice among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from cintervene import data
from cintervene.models.targets import (
    Target,
)
from cintervene.solvers.update import LowRankUpdate

__all__ = ["RefusalLimits", "choose", "requested", "summary"]

# Multiples of the change found that are measured on the tuning split, as long as they
# drift no further than allowed: more does not drift less.
STRENGTHS = (0.5, 0.7, 0.85, 1.0, 1.15, 1.3, 1.5, 1.75, 2.0)


@dataclass(frozen=True)
class RefusalLimits:
    """Limits on the tuning split.

    Attributes
    ----------
    max_kl : float
        Nats a token between base and changed model on benign requests.
    max_false_refusals : float
        Share of these that are refused beyond what the base model does.
    """

    max_kl: float
    max_false_refusals: float

    def strain(self, kl: float, false_refusals: float) -> float:
        """Share of the limits that is used up; above 1 they are crossed."""
        return max(kl / self.max_kl, false_refusals / self.max_false_refusals)


class Tried(Protocol):
    """A change that was measured on the tuning split."""

    @property
    def refused(self) -> float:
        """Share of harmful requests for which what was asked is reached."""

    @property
    def boldness(self) -> float:
        """Orders changes by how much is changed."""

    def strain(self, limits: RefusalLimits) -> float:
        """Share of the limits that is used up; above 1 they are crossed."""


P = TypeVar("P", bound=Tried)


def choose(sweep: Sequence[P], limits: RefusalLimits) -> P:
    """The mildest that refuses most within the limits, or strains them least."""
    within = [point for point in sweep if point.strain(limits) <= 1.0]
    if within:
        return max(within, key=lambda point: (point.refused, -point.boldness))
    return min(sweep, key=lambda point: point.strain(limits))


def requested(harmful: Sequence[str] | None) -> Sequence[str]:
    """The requests given, or the package's own."""
    if harmful is not None:
        return harmful
    return [prompt.text for prompt in data.harmful_prompts("train")]


def summary(target: Target, change: LowRankUpdate) -> dict[str, Any]:
    """What an intervention says about the change of one weight."""
    weight = float(target.weight.detach().float().norm())
    return {
        "name": target.name,
        "layer": target.layer,
        "rank": change.rank,
        "relative_norm": change.norm / weight,
    }
