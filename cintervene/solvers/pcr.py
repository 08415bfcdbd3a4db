# SPDX-License-Identifier: Apache-2.0
"""The smallest change of a weight that moves outputs out of forbidden regions."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from cintervene import _core
from cintervene.errors import ArgumentError
from cintervene.solvers.convex_concave import repair
from cintervene.solvers.preserve import Preserve
from cintervene.solvers.problem import (
    Problem,
    prepare,
)
from cintervene.solvers.solution import (
    Solution,
    Status,
)
from cintervene.solvers.update import LowRankUpdate
from cintervene.utils.validation import check_positive

__all__ = ["METHODS", "pcr"]

METHODS: dict[str, Callable[..., "_core.Found"]] = {
    "exact": _core.pcr_exact,
    "most_violated": _core.pcr_most_violated,
}
_HISTORY = ("violation", "cost", "lower_bound", "prompt", "constraint")
_HISTORY_ROWS = 10_000
# Relative error of a solution that needs no repair.
_FINISHED = 1e-9


def pcr(
    inputs: Any,
    outputs: Any,
    concepts: Any,
    radius: npt.ArrayLike,
    *,
    preserve: Preserve | None = None,
    slack: float = 0.0,
    halfspaces: tuple[Any, npt.ArrayLike] | None = None,
    method: str = "exact",
    tolerance: float = 1e-10,
    max_iterations: int = 100_000,
) -> Solution:
    r"""Least change of a weight that keeps outputs away from concepts.

    ``min ||delta||**2  subject to  ||o_j + delta h_j - c_i|| >= radius[j, i]`` for
    every prompt j and concept i, and ``u_l . (o_j + delta h_j) <= offset[j, l]`` for
    every direction l. A bias is part of the outputs.

    Parameters
    ----------
    inputs : array_like, shape (m, d_in)
        Inputs of the layer, one row a prompt (or a token position).
    outputs : array_like, shape (m, d_out)
        Outputs of the layer for them.
    concepts : array_like, shape (n, d_out), or None
        Points to stay away from; None or no rows when there are only half-spaces.
    radius : float or array_like, shape (n,) or (m, n)
        Distance to keep. 0 switches a pair off.
    preserve : Preserve, optional
        Measure the change by what it does to benign inputs.
    slack : float
        Price list for exceptions: a prompt may take up part of its displacement by
        itself, the cheaper the larger `slack` (in units of the mean squared input).
        0 makes the constraints hard.
    halfspaces : (directions, offsets), optional
        Directions (k, d_out), and offsets (k,) or (m, k); +inf switches a pair off.
    method : {"exact", "most_violated"}
        The global optimum with its proof, or the closed form of one constraint
        repeated on the most violated pair: feasible, but up to twice as costly.
    tolerance : float
        Violation to accept, relative to the largest radius or initial violation.
    max_iterations : int
        Iterations after which to give up.

    Returns
    -------
    Solution
        Not converging is a result, not an error: see its `status`.

    Raises
    ------
    ArgumentError
        Shapes do not match, a radius is negative, an option is unknown, or an input
        is zero throughout so that nothing could move its output.
    NonFiniteError
        An element is NaN or infinite.
    """
    solver = _choose(method)
    problem = prepare(inputs, outputs, concepts, radius, preserve, slack, halfspaces)
    _check_options(tolerance, max_iterations)
    found = solver(
        *problem.arrays,
        float(tolerance),
        int(max_iterations),
        min(int(max_iterations), _HISTORY_ROWS),
    )
    proof = _judge(problem, found)
    if method == "exact" and not _proves(proof, found):
        bound = proof["lower_bound"]
        repaired = repair(problem, found, bound, float(tolerance), int(max_iterations))
        if repaired is not found:
            found, proof = repaired, _judge(problem, repaired)
            proof["lower_bound"] = max(proof["lower_bound"], bound)
    return _wrap(problem, found, proof)


def _choose(method: str) -> Callable[..., "_core.Found"]:
    if method not in METHODS:
        valid = ", ".join(repr(name) for name in METHODS)
        raise ArgumentError(f"method: got {method!r}; expected one of {valid}")
    return METHODS[method]


def _check_options(tolerance: float, max_iterations: int) -> None:
    check_positive(tolerance=tolerance)
    if max_iterations < 0:
        raise ArgumentError(f"max_iterations: got {max_iterations}; expected >= 0")


def _wrap(
    problem: Problem, found: "_core.Found", proof: "_core.Certificate"
) -> Solution:
    coefficients, multipliers = found["coefficients"], found["multipliers"]
    status = Status(found["outcome"])
    used = np.any(coefficients != 0.0, axis=1)
    # A slice copies nothing where all rows are in use.
    rows = slice(None) if used.all() else used
    left = coefficients[rows]
    n = len(problem.concepts)
    slack_displacements, slack_margins = found["displacements"], found["margins"]
    displacements, margins = slack_displacements, slack_margins
    if problem.gram is not problem.true_gram:
        displacements = _core.product_nn(problem.true_gram[:, rows], left)
        margins = problem.margins(displacements)
    history = found["history"][: found["history_rows"]]
    return Solution(
        update=LowRankUpdate(np.ascontiguousarray(left.T), problem.dual_inputs[rows]),
        cost=float(np.vdot(coefficients, slack_displacements)),
        status=status,
        iterations=found["iterations"],
        displacements=displacements,
        margins=margins[:, :n],
        halfspace_margins=margins[:, n:],
        slack_displacements=slack_displacements,
        slack_margins=slack_margins[:, :n],
        slack_halfspace_margins=slack_margins[:, n:],
        multipliers=None if np.isnan(multipliers).any() else multipliers,
        lower_bound=proof["lower_bound"],
        residuals={
            "feasibility": found["violation"] / (found["unit"] or 1.0),
            "stationarity": proof["stationarity"],
            "complementarity": proof["complementarity"],
        },
        history={
            name: column
            for name, column in zip(_HISTORY, history.T, strict=True)
            if not np.isnan(column).all()
        },
    )


def _proves(proof: "_core.Certificate", found: "_core.Found") -> bool:
    """Whether there is nothing to repair: solved to the last digits, or hopeless."""
    if found["outcome"] != Status.CONVERGED:
        return found["outcome"] != Status.STALLED
    gap = abs(proof["cost"] - proof["lower_bound"])
    residual = max(proof["stationarity"], proof["complementarity"])
    return gap <= _FINISHED * proof["cost"] and residual <= _FINISHED


def _judge(problem: Problem, found: "_core.Found") -> "_core.Certificate":
    """The proof that comes with the multipliers, if there is one."""
    multipliers, nothing = found["multipliers"], float("nan")
    if found["outcome"] == Status.INFEASIBLE:
        multipliers /= multipliers.max()
        bound = float("inf")
    elif np.isnan(multipliers).any():
        bound = 0.0
    else:
        coefficients = found["coefficients"]
        return _core.pcr_certify(*problem.arrays, coefficients, multipliers)
    return {
        "cost": nothing,
        "lower_bound": bound,
        "stationarity": nothing,
        "complementarity": nothing,
        "shrink": nothing,
    }
