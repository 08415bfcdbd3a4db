# SPDX-License-Identifier: Apache-2.0
"""Changes that are tried on the tuning split, and the choice among them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

__all__ = ["STRENGTHS", "RefusalLimits", "RefusalPoint", "mildest_within"]

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


class RefusalPoint(Protocol):
    """Base of what is measured of a change on the tuning split.

    Attributes
    ----------
    refused : float
        Share of harmful requests for which what was asked is reached.
    false_refusals : float
        Share of benign requests that are refused, and are not by the base model.
    kl : float
        Nats a token between base and changed model on benign requests.
    """

    refused: float
    false_refusals: float
    kl: float

    @property
    @abstractmethod
    def boldness(self) -> float:
        """Orders changes by how much is changed."""

    def strain(self, limits: RefusalLimits) -> float:
        """Share of the limits that is used up; above 1 they are crossed."""
        return max(
            self.kl / limits.max_kl, self.false_refusals / limits.max_false_refusals
        )


P = TypeVar("P", bound=RefusalPoint)


def mildest_within(sweep: Sequence[P], limits: RefusalLimits) -> P:
    """The mildest that refuses most within the limits, or strains them least.

    See docs/methods/tsr.md (7) and docs/methods/gate.md (6).
    """
    within = [point for point in sweep if point.strain(limits) <= 1.0]
    if within:
        return max(within, key=lambda point: (point.refused, -point.boldness))
    return min(sweep, key=lambda point: point.strain(limits))
