# SPDX-License-Identifier: Apache-2.0
"""What a solver returns."""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from cintervene.solvers.update import LowRankUpdate
from cintervene.utils.arrays import Floats
from cintervene.utils.html import html_facts

__all__ = ["Solution", "Status", "is_proof", "relative_gap"]


class Status(IntEnum):
    """How a solve ended. Only the first means that the constraints are met."""

    CONVERGED = 0
    ITERATION_LIMIT = 1
    STALLED = 2
    INFEASIBLE = 3


def relative_gap(cost: float, lower_bound: float) -> float:
    """How far a cost may be from the least possible, relative to itself."""
    if cost == 0.0 and lower_bound <= 0.0:
        return 0.0
    return (cost - lower_bound) / cost if cost > 0.0 else float("nan")


def is_proof(feasibility: float, gap: float) -> bool:
    """Whether a change is feasible to 1e-9 and optimal to 1e-8 of its cost."""
    return bool(feasibility <= 1e-9 and abs(gap) <= 1e-8)


@dataclass(frozen=True, repr=False)
class Solution:
    """The change found, and how far it can be trusted.

    With slack, `displacements`, `margins` and `halfspace_margins` are what the update
    does by itself; the fields named `slack_*` add the share that each prompt took up
    as slack. Without slack both are the same.

    Attributes
    ----------
    update : LowRankUpdate
        The change of the weight, of rank at most the number of prompts.
    coefficients : ndarray, shape (m, d_out), or None
        A of the representer form, docs/methods/pcr.md (4); None where the update is
        over orthonormal rows instead.
    cost : float
        Squared norm of the change: Frobenius, or that of `Preserve`; the price of the
        slack is included.
    status : Status
        How the solve ended.
    iterations : int
        Pushes of the most-violated rule, or Newton steps of the exact solver.
    displacements : ndarray, shape (m, d_out)
        Change of the outputs.
    margins : ndarray, shape (m, n)
        Distance from each output to each concept, minus the radius.
    halfspace_margins : ndarray, shape (m, k)
        Offset minus the product with the direction; +inf where switched off.
    slack_displacements, slack_margins, slack_halfspace_margins : ndarray
        The same, with slack.
    multipliers : ndarray, shape (m, n + k), or None
        Lagrange multipliers of ``radius**2 - distance**2 <= 0`` and of
        ``2 (direction . output - offset) <= 0``; None where a method has none.
        When the constraints contradict each other: the weights with which they add up
        to a contradiction, the largest being 1.
    lower_bound : float
        No change that meets the constraints costs less; inf when none meets them.
    residuals : dict
        All with slack, and computed by code that the solvers do not share:
        `feasibility`, the largest violation relative to the largest radius or initial
        violation; `stationarity` and `complementarity`, how far the multipliers are
        from satisfying the optimality conditions (NaN where there are none).
    history : dict of ndarray
        One entry an iteration: `violation`, and what the method has besides.
    """

    update: LowRankUpdate
    coefficients: Floats | None
    cost: float
    status: Status
    iterations: int
    displacements: Floats
    margins: Floats
    halfspace_margins: Floats
    slack_displacements: Floats
    slack_margins: Floats
    slack_halfspace_margins: Floats
    multipliers: Floats | None
    lower_bound: float
    residuals: dict[str, float]
    history: dict[str, Floats]

    @property
    def gap(self) -> float:
        """How far the cost may be from the least possible, relative to the cost."""
        if self.status is Status.INFEASIBLE:
            return float("nan")
        return relative_gap(self.cost, self.lower_bound)

    @property
    def certified(self) -> bool:
        """Whether this is proved to be the global optimum, to 1e-8 of the cost.

        True exactly where `cintervene.certify` says so.
        """
        return is_proof(self.residuals["feasibility"], self.gap)

    @property
    def clashes(self) -> list[tuple[int, int]]:
        """Constraints, as (prompt, column), that contradict each other."""
        if self.status is not Status.INFEASIBLE or self.multipliers is None:
            return []
        pairs = np.argwhere(self.multipliers > 1e-6)
        return [(int(prompt), int(column)) for prompt, column in pairs]

    def __repr__(self) -> str:
        """Return the facts that decide whether to use it, on one line."""
        return (
            f"Solution({self.status.name}, cost={self.cost:.6g}, "
            f"rank={self.update.rank}, iterations={self.iterations}, "
            f"feasibility={self.residuals['feasibility']:.1e}, gap={self.gap:.1e})"
        )

    def _repr_html_(self) -> str:
        """What notebooks show: the same facts, and what they prove."""
        facts = {
            "proved to be optimal": "yes" if self.certified else "no",
            "status": self.status.name,
            "cost": f"{self.cost:.6g}",
            "lower bound": f"{self.lower_bound:.6g}",
            "gap": f"{self.gap:.1e}",
            "feasibility": f"{self.residuals['feasibility']:.1e}",
            "rank": str(self.update.rank),
            "iterations": str(self.iterations),
        }
        return html_facts("Solution", facts.items())
