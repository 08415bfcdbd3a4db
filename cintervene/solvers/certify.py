# SPDX-License-Identifier: Apache-2.0
"""Checking a claimed solution against docs/methods/pcr.md (5) and (6), from scratch."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cintervene import _core
from cintervene.errors import ArgumentError
from cintervene.solvers.preserve import Preserve
from cintervene.solvers.problem import (
    MeasuredInputs,
    Problem,
    check_price,
    prepare,
)
from cintervene.solvers.solution import Solution, is_proof, relative_gap
from cintervene.solvers.update import LowRankUpdate, displacement
from cintervene.utils.arrays import Floats, shape_of
from cintervene.utils.html import html_facts
from cintervene.utils.scale import LEAST

__all__ = ["Certificate", "certify", "examine"]


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
        return relative_gap(self.cost, self.lower_bound)

    @property
    def certified(self) -> bool:
        """Whether the claim is proved: feasible to 1e-9 and optimal to 1e-8."""
        return is_proof(self.feasibility, self.gap)

    def _repr_html_(self) -> str:
        """What notebooks show."""
        stored = self.stored_feasibility
        facts = {
            "proved to be optimal": "yes" if self.certified else "no",
            "cost": f"{self.cost:.6g}",
            "lower bound": f"{self.lower_bound:.6g}",
            "gap": f"{self.gap:.1e}",
            "feasibility": f"{self.feasibility:.1e}",
            "after rounding": "not asked for" if stored is None else f"{stored:.1e}",
            "stationarity": f"{self.stationarity:.1e}",
            "complementarity": f"{self.complementarity:.1e}",
        }
        return html_facts("Certificate", facts.items())


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
    the share of each displacement that is slack. The bound is docs/methods/pcr.md (5),
    the residuals are those of (6); nothing is shared with the solver.

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

    References
    ----------
    docs/certificate.md, Theorems 2 and 3. The problem is PCR of arXiv 2510.03567.

    Examples
    --------
    >>> import numpy as np
    >>> import cintervene as ci
    >>> problem = [[2.0, 0.0]], [[0.0, 1.0]], [[0.0, 0.5]], 1.0
    >>> solution = ci.pcr(*problem)
    >>> certificate = ci.certify(solution, *problem, weight=np.zeros((2, 2), "f4"))
    >>> certificate.certified
    True
    >>> round(certificate.cost, 6), round(certificate.lower_bound, 6)
    (0.0625, 0.0625)
    >>> bool(certificate.stored_feasibility < 1e-6)
    True
    """
    if not isinstance(solution, Solution):
        raise ArgumentError(
            f"solution: got {type(solution).__name__}; expected what cintervene.pcr "
            "returned"
        )
    measured = MeasuredInputs.of(inputs, preserve)
    problem = prepare(measured, outputs, concepts, radius, slack, halfspaces)
    _check_shapes(solution, problem)
    return examine(solution, problem, measured.wide, preserve, weight)


def examine(
    solution: Solution,
    problem: Problem,
    h: Floats,
    preserve: Preserve | None,
    weight: Any = None,
) -> Certificate:
    """Check a claimed solution of a problem with inputs h (m, d_in), as `certify`."""
    start = problem.margins(np.zeros_like(problem.outputs))
    unit = _unit(problem, start)
    check_price(problem, unit)
    moved = _responses(solution.update, h)
    cost = _squared_norm(solution.update, preserve)
    added = problem.gram - problem.true_gram
    private = float(added.diagonal().mean()) if h.size else 0.0
    if private > 0.0:
        taken = solution.slack_displacements - solution.displacements
        cost += float(np.sum(np.square(taken))) / private
        moved = moved + taken
    proof = _prove(solution, problem, preserve, moved)
    stored = None if weight is None else _after_rounding(solution.update, weight, h)
    return Certificate(
        cost=cost,
        lower_bound=proof["lower_bound"],
        feasibility=_feasibility(problem, moved, unit),
        stored_feasibility=(
            None if stored is None else _feasibility(problem, stored, unit)
        ),
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
    points = len(problem.concepts) + len(problem.directions)
    constraints = (len(problem.outputs), points)
    given = solution.multipliers
    if given is not None and given.shape != constraints:
        raise ArgumentError(
            f"solution: its multipliers have shape {given.shape}; expected "
            f"{constraints}. "
            "Pass the arguments of the solve it came from"
        )


def _responses(update: LowRankUpdate, h: Floats) -> Floats:
    """What the update does to the outputs, ``H delta'``."""
    return _core.product_nt(_core.product_nt(h, update.right), update.left)


def _squared_norm(update: LowRankUpdate, preserve: Preserve | None) -> float:
    norm = update.norm if preserve is None else preserve.norm(update)
    return float(norm) * float(norm)


def _unit(problem: Problem, start: Floats) -> float:
    """The length that feasibility refers to, from the margins at the start."""
    balls = start[:, : len(problem.concepts)]
    violated = (problem.radius > 0.0) & (balls < -LEAST)
    longest = float(np.max(problem.radius, where=violated, initial=0.0))
    balls[:] = 0.0
    violation = problem.worst_violation(start)
    return max(longest, violation if violation > LEAST else 0.0)


def _feasibility(problem: Problem, moved: Floats, unit: float) -> float:
    violation = problem.worst_violation(problem.margins(moved))
    return violation / unit if unit > 0.0 else violation


def _prove(
    solution: Solution, problem: Problem, preserve: Preserve | None, moved: Floats
) -> "_core.Certificate":
    """The bound (5), and the residuals of (6): A = diag(nu) D + Q, and activity."""
    n = len(problem.concepts)
    multipliers = solution.multipliers
    known = multipliers is not None and bool(np.all(multipliers >= 0.0))
    if multipliers is None or not known:
        multipliers = np.zeros((len(moved), n + len(problem.directions)))
    balls, halves = multipliers[:, :n], multipliers[:, n:]
    total = balls.sum(axis=1, keepdims=True)
    implied = total * (problem.outputs + moved) - _core.product_nn(
        balls, problem.concepts
    )
    implied -= _core.product_nn(halves, problem.directions)
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
    shape = shape_of(weight, "weight")
    if shape != update.shape:
        raise ArgumentError(f"weight: has shape {shape}; expected {update.shape}")
    changed = weight.clone() if hasattr(weight, "clone") else np.array(weight)
    return displacement(weight, update.apply(changed), h)
