# SPDX-License-Identifier: Apache-2.0
"""PCR on arrays: the exact dual solve in C with its certificate, and what follows it.

The problem is docs/methods/pcr.md (1). Where the exact solve does not end with a proof
to the last digits, `convex_concave.repair` goes on from its result.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from cintervene import _core
from cintervene.errors import ArgumentError
from cintervene.solvers.certify import Certificate, examine
from cintervene.solvers.convex_concave import repair
from cintervene.solvers.preserve import Preserve
from cintervene.solvers.problem import MeasuredInputs, Problem, check_price, prepare
from cintervene.solvers.settle import settle
from cintervene.solvers.solution import Solution, Status
from cintervene.solvers.update import LowRankUpdate
from cintervene.utils.arrays import Floats
from cintervene.utils.validation import check_positive, check_whole

__all__ = ["METHODS", "pcr", "pcr_measured"]

METHODS: dict[str, Callable[..., "_core.Found"]] = {
    "exact": _core.pcr_exact,
    "most_violated": _core.pcr_most_violated,
}
_HISTORY = ("violation", "cost", "lower_bound", "prompt", "constraint")
_HISTORY_ROWS = 10_000
# Relative gap and residual of a solution that is final.
_FINISHED = 1e-9
# Violation that rounding alone may leave, which `settle` makes up for.
_ROUNDED = 1e-6
# Relative error of a sum of products, for a guess of what rounding may do.
_ROUNDING = 8.0 * np.finfo(np.float64).eps
# Columns that show of nearly every row of coefficients that it is not zero.
_GLANCE = 16


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

    ``method="exact"`` solves the dual problem in C: the change it returns is proved to
    be the global optimum where `Solution.certified` is True. Where that solve stalls,
    or leaves a relative gap or residual above 1e-9, a convex-concave procedure goes on
    from its result and finds a local optimum, whose own multipliers may or may not
    close the gap.

    ``min ||delta||**2  subject to  ||o_j + delta h_j - c_i|| >= radius[j, i]`` for
    every prompt j and concept i, and ``u_l . (o_j + delta h_j) <= offset[j, l]`` for
    every direction l. A bias is part of the outputs. The change is returned in
    representer form, docs/methods/pcr.md (4).

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
        Measure the change by what it does to benign inputs, (3).
    slack : float
        A prompt may take up part of its displacement by itself, the cheaper the larger
        `slack` (rho of (7), in units of the mean squared input). 0 makes the
        constraints hard.
    halfspaces : (directions, offsets), optional
        Directions (k, d_out), and offsets (k,) or (m, k); +inf switches a pair off.
    method : {"exact", "most_violated"}
        See above; or the paper's rule, the closed form of one constraint, (2),
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

    References
    ----------
    arXiv 2510.03567, PCR; docs/methods/pcr.md; docs/certificate.md.

    Examples
    --------
    One output, 0.5 from a concept, is to be 1 away from it:

    >>> import cintervene as ci
    >>> inputs, outputs, concepts = [[2.0, 0.0]], [[0.0, 1.0]], [[0.0, 0.5]]
    >>> solution = ci.pcr(inputs, outputs, concepts, radius=1.0)
    >>> solution.certified
    True
    >>> solution.update.matrix().round(6)
    array([[0.  , 0.  ],
           [0.25, 0.  ]])
    """
    return pcr_measured(
        MeasuredInputs.of(inputs, preserve),
        outputs,
        concepts,
        radius,
        slack=slack,
        halfspaces=halfspaces,
        method=method,
        tolerance=tolerance,
        max_iterations=max_iterations,
    )


def pcr_measured(
    inputs: MeasuredInputs,
    outputs: Any,
    concepts: Any,
    radius: npt.ArrayLike,
    *,
    slack: float = 0.0,
    halfspaces: tuple[Any, npt.ArrayLike] | None = None,
    method: str = "exact",
    tolerance: float = 1e-10,
    max_iterations: int = 100_000,
) -> Solution:
    """As `pcr`, of inputs that a norm has measured already."""
    solver = _solver(method)
    problem = prepare(inputs, outputs, concepts, radius, slack, halfspaces)
    _check_options(tolerance, max_iterations)
    limits = float(tolerance), int(max_iterations)
    result, proof = _solve(problem, solver, method == "exact", *limits)
    solution = _solution(problem, result, proof)
    h, preserve = inputs.wide, inputs.preserve
    if not _in_doubt(problem, h, result, solution):
        return solution
    solution = _corrected(solution, examine(solution, problem, h, preserve), tolerance)
    if not _short_by_rounding(solution, tolerance):
        return solution
    accepted = 0.1 * tolerance * result["unit"]
    settled = settle(solution, problem, h, accepted, tolerance)
    settled = replace(settled, status=Status.CONVERGED)
    certificate = examine(settled, problem, h, preserve)
    settled = _corrected(settled, certificate, tolerance)
    better = settled.certified or solution.status is Status.STALLED
    return settled if better and settled.status is Status.CONVERGED else solution


def _solve(
    problem: Problem,
    solver: Callable[..., "_core.Found"],
    exact: bool,
    tolerance: float,
    max_iterations: int,
) -> tuple["_core.Found", "_core.Certificate"]:
    """What a solver finds, repaired where it proves nothing, and its proof."""
    rows = min(max_iterations, _HISTORY_ROWS)
    result = solver(*problem.arrays, tolerance, max_iterations, rows)
    check_price(problem, result["unit"])
    proof = _certificate(problem, result)
    if exact and not _is_final(proof, result):
        bound = proof["lower_bound"]
        repaired = repair(problem, result, bound, tolerance, max_iterations)
        if repaired is not result:
            return _better_proved(problem, repaired, result["multipliers"])
    return result, proof


def _solver(method: str) -> Callable[..., "_core.Found"]:
    if method not in METHODS:
        valid = ", ".join(repr(name) for name in METHODS)
        raise ArgumentError(f"method: got {method!r}; expected one of {valid}")
    return METHODS[method]


def _check_options(tolerance: float, max_iterations: int) -> None:
    check_positive(tolerance=tolerance)
    if tolerance >= 1.0:
        raise ArgumentError(
            f"tolerance: got {tolerance}; expected a number below 1, for it is relative"
        )
    check_whole(0, max_iterations=max_iterations)


def _solution(
    problem: Problem, result: "_core.Found", proof: "_core.Certificate"
) -> Solution:
    """The update A' H P^-1 of (4), and what it does with and without slack."""
    coefficients, multipliers = result["coefficients"], result["multipliers"]
    status = Status(result["outcome"])
    # A glance at the first columns shows of nearly every row that it is in use, and a
    # slice copies nothing where all are.
    used = np.any(coefficients[:, :_GLANCE] != 0.0, axis=1)
    rows = slice(None) if used.all() else np.any(coefficients != 0.0, axis=1)
    left, right = coefficients[rows], problem.dual_inputs[rows]
    n = len(problem.concepts)
    slack_displacements, slack_margins = result["displacements"], result["margins"]
    displacements, margins = slack_displacements, slack_margins
    if problem.gram is not problem.true_gram:
        displacements = _core.product_nn(problem.true_gram[:, rows], left)
        margins = problem.margins(displacements)
    history = result["history"][: result["history_rows"]]
    # NumPy's BLAS would wake a thread for a product, which then waits spinning for as
    # long as a whole solve takes.
    cost = float(np.einsum("ij,ij", coefficients, slack_displacements))
    # A number only where every coefficient is one.
    if not np.isfinite(cost):
        _core.check_finite(left, "left")
    return Solution(
        update=LowRankUpdate.of_finite(np.ascontiguousarray(left.T), right),
        cost=cost,
        coefficients=coefficients,
        status=status,
        iterations=result["iterations"],
        displacements=displacements,
        margins=margins[:, :n],
        halfspace_margins=margins[:, n:],
        slack_displacements=slack_displacements,
        slack_margins=slack_margins[:, :n],
        slack_halfspace_margins=slack_margins[:, n:],
        multipliers=None if np.isnan(multipliers).any() else multipliers,
        lower_bound=proof["lower_bound"],
        residuals={
            "feasibility": result["violation"] / (result["unit"] or 1.0),
            "stationarity": proof["stationarity"],
            "complementarity": proof["complementarity"],
        },
        history={
            name: column
            for name, column in zip(_HISTORY, history.T, strict=True)
            if not np.isnan(column).all()
        },
    )


def _in_doubt(
    problem: Problem, h: Floats, result: "_core.Found", solution: Solution
) -> bool:
    """Whether the update might be judged otherwise than its coefficients are.

    A figure is near where the judgement turns; or the products with the inputs, or
    distances, may come out otherwise by rounding, which inputs that are almost
    dependent and outputs far from where they differ enlarge.
    """
    feasibility, gap = solution.residuals["feasibility"], abs(solution.gap)
    near = 1e-11 < feasibility < 1e-6 or 1e-10 < gap < 1e-6
    if near or result["unit"] == 0.0 or not solution.cost > 0.0:
        return True
    squares = problem.true_gram.diagonal()
    if h is not problem.dual_inputs:
        squares = _lengths(h) * _lengths(problem.dual_inputs)
    lengths = np.sqrt(squares)
    spread = lengths @ _lengths(result["coefficients"])
    place = problem.size * np.sqrt(problem.outputs.shape[1]) + lengths.max() * spread
    errors = place / result["unit"], 0.1 * spread * (spread / solution.cost)
    return bool(max(errors) * _ROUNDING > 1e-11)


def _lengths(rows: Floats) -> Floats:
    """Of rows; nothing as large as these is made on the way."""
    return np.asarray(np.sqrt(np.einsum("ij,ij->i", rows, rows)))


def _corrected(
    solution: Solution, certificate: Certificate, tolerance: float
) -> Solution:
    """The solution with the figures of its certificate, and the status they allow."""
    status = solution.status
    if status is Status.CONVERGED:
        limit = max(10.0 * tolerance, 1e-9)
        status = status if certificate.feasibility <= limit else Status.STALLED
    if status is Status.INFEASIBLE:
        return solution
    return replace(
        solution,
        status=status,
        cost=certificate.cost,
        lower_bound=certificate.lower_bound,
        residuals={
            "feasibility": certificate.feasibility,
            "stationarity": certificate.stationarity,
            "complementarity": certificate.complementarity,
        },
    )


def _short_by_rounding(solution: Solution, tolerance: float) -> bool:
    """Whether a small violation alone may keep a solution from its status or proof."""
    over = solution.residuals["feasibility"]
    if solution.status is Status.STALLED:
        return over <= _ROUNDED
    some = 0.1 * tolerance < over <= _ROUNDED
    return solution.status is Status.CONVERGED and some and not solution.certified


def _is_final(proof: "_core.Certificate", result: "_core.Found") -> bool:
    """Whether the exact solve ended with a proof, at its limit, or as infeasible."""
    if result["outcome"] != Status.CONVERGED:
        return result["outcome"] != Status.STALLED
    gap = abs(proof["cost"] - proof["lower_bound"])
    residual = max(proof["stationarity"], proof["complementarity"])
    return gap <= _FINISHED * proof["cost"] and residual <= _FINISHED


def _better_proved(
    problem: Problem, result: "_core.Found", multipliers: Floats
) -> tuple["_core.Found", "_core.Certificate"]:
    """The result with its own multipliers or the others, whichever prove more."""
    claims = [result]
    if np.all(multipliers >= 0.0):
        claims.append(result | {"multipliers": multipliers})
    proofs = [(claim, _certificate(problem, claim)) for claim in claims]
    return max(proofs, key=lambda found: found[1]["lower_bound"])


def _certificate(problem: Problem, result: "_core.Found") -> "_core.Certificate":
    """The bound (5) and the residuals of (6) that the multipliers give, if any."""
    multipliers, nothing = result["multipliers"], float("nan")
    if result["outcome"] == Status.INFEASIBLE:
        multipliers /= multipliers.max()
        bound = float("inf")
    elif np.isnan(multipliers).any():
        bound = 0.0
    else:
        coefficients = result["coefficients"]
        return _core.pcr_certify(*problem.arrays, coefficients, multipliers)
    return {
        "cost": nothing,
        "lower_bound": bound,
        "stationarity": nothing,
        "complementarity": nothing,
        "shrink": nothing,
    }
