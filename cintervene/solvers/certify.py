# SPDX-License-Identifier: Apache-2.0
"""Checking a claimed solution from scratch."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cintervene import _core
from cintervene.errors import ArgumentError
from cintervene.solvers.preserve import Preserve
from cintervene.solvers.problem import (
    Problem,
    prepare,
)
from cintervene.solvers.solution import Solution
from cintervene.solvers.update import (
    LowRankUpdate,
    displacement,
)
from cintervene.utils.arrays import Floats, shape_of

__all__ = ["Certificate", "certify"]


@dataclass(frozen=True)
class Certificate:
    """What is true of a claimed solution, whoever found it.

    Attributes
    ----------
    cost : float
        Squared norm of the update, and the price of its slack.
    lower_bound : float
        No change that meets the constraints costs less. Follows from the multipliers
        alone; 0 without any.
    feasibility : float
        Largest violation, relative to the largest radius or initial violation.
    stored_feasibility : float or None
        The same after the update was applied to `weight` and rounded to its dtype,
        without any slack.
    stationarity : float
        How far the update is from the one that the multipliers imply, relative to its
        norm. NaN without multipliers.
    complementarity : float
        Sum of multipliers times distances from being active, relative to the cost.
    """

    cost: float
    lower_bound: float
    feasibility: float
    stored_feasibility: float | None
    stationarity: float
    complementarity: float

    @property
    def gap(self) -> float:
        """How far the cost may be from the least possible, relative to the cost."""
        return (self.cost - self.lower_bound) / self.cost if self.cost > 0.0 else 0.0

    @property
    def certified(self) -> bool:
        """Whether the claim is proved: feasible to 1e-9 and optimal to 1e-8."""
        return bool(self.feasibility <= 1e-9 and abs(self.gap) <= 1e-8)


def certify(
    solution: Solution,
    inputs: Any,
    outputs: Any,
    concepts: Any,
    radius: npt.ArrayLike,
    preserve: Preserve | None = None,
    *,
    slack: float = 0.0,
    halfspaces: tuple[Any, npt.ArrayLike] | None = None,
    weight: Any = None,
) -> Certificate:
    """Check a claimed solution of :func:`pcr` against the problem's own data.

    Trusts nothing but the factors of the update, its multipliers and, with `slack`,
    the share of each displacement that is slack.

    Parameters
    ----------
    solution : Solution
        The claim.
    inputs, outputs, concepts, radius, preserve, slack, halfspaces
        The problem, as given to :func:`pcr`.
    weight : array_like, shape (d_out, d_in), optional
        Weights to which the update is to be added, to judge it after rounding.

    Returns
    -------
    Certificate

    Raises
    ------
    ArgumentError
        The arguments are not those of a problem, or the solution is of another shape.
    """
    problem = prepare(inputs, outputs, concepts, radius, preserve, slack, halfspaces)
    _check_shapes(solution, problem)
    h = _core.as_float64(inputs)
    own = _responses(solution.update, h)
    taken = solution.slack_displacements - solution.displacements
    price = (
        float((problem.gram - problem.true_gram).diagonal().mean()) if h.size else 0.0
    )
    cost = _squared_norm(solution.update, preserve)
    if price > 0.0:
        cost += float(np.sum(np.square(taken))) / price
        moved = own + taken
    else:
        moved = own
    proof = _prove(solution, problem, preserve, moved)
    stored = None if weight is None else _after_rounding(solution.update, weight, h)
    return Certificate(
        cost=cost,
        lower_bound=proof["lower_bound"],
        feasibility=_feasibility(problem, moved),
        stored_feasibility=None if stored is None else _feasibility(problem, stored),
        stationarity=proof["stationarity"],
        complementarity=proof["complementarity"],
    )


def _check_shapes(solution: Solution, problem: Problem) -> None:
    expected = (problem.outputs.shape[1], problem.dual_inputs.shape[1])
    if solution.update.shape != expected:
        raise ArgumentError(
            f"solution: its update has shape {solution.update.shape}; expected "
            f"{expected}. Pass the arguments of the solve it came from"
        )
    pairs = (len(problem.outputs), len(problem.concepts) + len(problem.directions))
    given = solution.multipliers
    if given is not None and given.shape != pairs:
        raise ArgumentError(
            f"solution: its multipliers have shape {given.shape}; expected {pairs}. "
            "Pass the arguments of the solve it came from"
        )


def _responses(update: LowRankUpdate, h: Floats) -> Floats:
    """What the update does to the outputs, ``H delta'``."""
    return _core.product_nt(_core.product_nt(h, update.right), update.left)


def _squared_norm(update: LowRankUpdate, preserve: Preserve | None) -> float:
    norm = update.norm if preserve is None else preserve.norm(update)
    return float(norm**2)


def _feasibility(problem: Problem, moved: Floats) -> float:
    start = problem.margins(np.zeros_like(moved))
    balls = start[:, : len(problem.concepts)]
    violated = (problem.radius > 0.0) & (balls < 0.0)
    longest = float(np.max(problem.radius, where=violated, initial=0.0))
    balls[:] = 0.0
    unit = max(longest, problem.worst_violation(start))
    violation = problem.worst_violation(problem.margins(moved))
    return violation / unit if unit > 0.0 else violation


def _prove(
    solution: Solution, problem: Problem, preserve: Preserve | None, moved: Floats
) -> "_core.Certificate":
    """The bound, and how far the update is from ``(N D + Q)' K`` and activity."""
    multipliers = solution.multipliers
    if multipliers is None or not np.all(multipliers >= 0.0):
        multipliers = np.zeros((len(moved), problem.radius.shape[1]))
        multipliers = np.pad(multipliers, ((0, 0), (0, len(problem.directions))))
        known = False
    else:
        known = True
    n = len(problem.concepts)
    balls, halves = multipliers[:, :n], multipliers[:, n:]
    total = balls.sum(axis=1, keepdims=True)
    implied = total * (problem.outputs + moved) - balls @ problem.concepts
    implied -= halves @ problem.directions
    proof = _core.pcr_certify(*problem.arrays, implied, multipliers)
    error = solution.update - LowRankUpdate(implied.T, problem.dual_inputs)
    norm = _squared_norm(solution.update, preserve)
    distance = _squared_norm(error, preserve)
    proof["stationarity"] = float(np.sqrt(distance / norm)) if norm > 0.0 else 0.0
    if not known:
        proof["stationarity"] = proof["complementarity"] = float("nan")
    return proof


def _after_rounding(update: LowRankUpdate, weight: Any, h: Floats) -> Floats:
    """What the update does to the outputs once added to stored weights."""
    if shape_of(weight) != update.shape:
        raise ArgumentError(
            f"weight: has shape {shape_of(weight)}; expected {update.shape}"
        )
    changed = weight.clone() if hasattr(weight, "clone") else np.array(weight)
    return displacement(weight, update.apply(changed), h)
