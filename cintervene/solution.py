# SPDX-License-Identifier: Apache-2.0
"""What a solver returns."""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from cintervene.update import LowRankUpdate

__all__ = ["Solution", "Status"]

Floats = npt.NDArray[np.float64]


class Status(IntEnum):
    """How a solve ended. Only the first means that the constraints are met."""

    CONVERGED = 0
    ITERATION_LIMIT = 1
    STALLED = 2
    INFEASIBLE = 3


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
    lower_bound : float
        No change that meets the constraints costs less; -inf if nothing was proved.
    residuals : dict
        `feasibility`: the largest violation (with slack), relative to the largest
        radius or initial violation.
    history : dict of ndarray
        One entry an iteration: `violation`, and what the method has besides.
    """

    update: LowRankUpdate
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

    def __repr__(self) -> str:
        """Return the facts that decide whether to use it, on one line."""
        return (
            f"Solution({self.status.name}, cost={self.cost:.6g}, "
            f"rank={self.update.rank}, iterations={self.iterations}, "
            f"feasibility={self.residuals['feasibility']:.1e})"
        )
