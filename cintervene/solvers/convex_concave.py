# SPDX-License-Identifier: Apache-2.0
"""A convex-concave procedure: a local optimum where the exact solve proves none.

The exact solve is the dual problem in C (`_core.pcr_exact`), whose multipliers prove
its result to be the global optimum. `cintervene.pcr` calls `repair` only where that
solve stalls, or ends with a relative gap or residual above 1e-9: when the outputs leave
too few dimensions free for the semidefinite relaxation to be tight, or by rounding near
degenerate problems. What is found here is feasible and locally optimal; it is proved to
be the global optimum only if its own multipliers close the gap.

Each step replaces the outside of every ball by the half-space that touches the ball
nearest to the present output. It lies within the outside, and half-spaces are solved
exactly (Yuille and Rangarajan, Neural Computation 15, 2003). A start that is not
feasible is made so by the most-violated rule.
"""

from dataclasses import replace

import numpy as np

from cintervene import _core
from cintervene.solvers.problem import Problem
from cintervene.solvers.solution import Status

__all__ = ["repair"]

# Limits of the most-violated rule and of the convex-concave steps.
_MAX_PUSHES = 10_000
_MAX_STEPS = 100
# Relative changes of the cost, and of the coefficients, that count as none. The latter
# are waited for where the gap is below _NEAR_GAP.
_COST_TOLERANCE = 1e-12
_MOVE_TOLERANCE = 1e-11
_NEAR_GAP = 1e-4
# Above this gap a second start is worth its time.
_RESTART_GAP = 1e-6


def repair(
    problem: Problem,
    result: "_core.Found",
    lower_bound: float,
    tolerance: float,
    max_iterations: int,
) -> "_core.Found":
    """Turn a result that is not final into a locally optimal one, if possible.

    Parameters
    ----------
    problem : Problem
    result : dict
        What `_core.pcr_exact` returned.
    lower_bound : float
        What its multipliers prove.
    tolerance, max_iterations
        As for `cintervene.pcr`.

    Returns
    -------
    dict
        Like `result`; `result` itself where no feasible change was found.
    """
    best = _descend(problem, result, tolerance, max_iterations)
    if best is None or _cost(problem, best) > lower_bound * (1.0 + _RESTART_GAP):
        pushed = _most_violated(problem, result, tolerance, max_iterations)
        starts = [pushed] if pushed or best else _beyond_concepts(problem, result)
        ends = [s and _descend(problem, s, tolerance, max_iterations) for s in starts]
        feasible = [end for end in (best, *ends) if end]
        best = min(feasible, key=lambda end: _cost(problem, end), default=None)
    return _evaluated(problem, best, tolerance) if best else result


def _descend(
    problem: Problem,
    start: "_core.Found",
    tolerance: float,
    max_iterations: int,
) -> "_core.Found | None":
    """Repeat the convex-concave step while it lowers the cost.

    Near the least cost the cost says nothing about the last half of the digits, and a
    proof needs them: there the steps go on until the change itself comes to rest.
    """
    near = False
    best = _step(problem, start, tolerance, max_iterations)
    for _ in range(_MAX_STEPS):
        better = best and _step(problem, best, tolerance, max_iterations)
        if not best or not better:
            break
        before, cost = _cost(problem, best), _cost(problem, better)
        if cost > before * (1.0 + _COST_TOLERANCE):
            break
        settled = cost >= before * (1.0 - _COST_TOLERANCE)
        at_rest = _distance(best, better) <= _MOVE_TOLERANCE
        # Multipliers belong to where a step began: the last step has the right ones.
        best = better
        near = near or (settled and cost <= _bound(problem, best) * (1.0 + _NEAR_GAP))
        if settled and (at_rest or not near):
            break
    return best


def _bound(problem: Problem, result: "_core.Found") -> float:
    """The lower bound on the cost that its multipliers give, (5)."""
    proof = _core.pcr_certify(
        *problem.arrays, result["coefficients"], result["multipliers"]
    )
    return proof["lower_bound"]


def _distance(a: "_core.Found", b: "_core.Found") -> float:
    """Between two changes, relative to the second."""
    first, second = a["coefficients"], b["coefficients"]
    size = float(np.linalg.norm(second))
    return float(np.linalg.norm(first - second)) / (size if size > 0.0 else 1.0)


def _evaluated(
    problem: Problem, result: "_core.Found", tolerance: float
) -> "_core.Found":
    """Bring everything that follows from the coefficients up to date."""
    displacements = _core.product_nn(problem.gram, result["coefficients"])
    margins = problem.margins(displacements)
    violation = problem.worst_violation(margins)
    met = violation <= 10.0 * tolerance * result["unit"]
    evaluated = result.copy()
    evaluated["displacements"], evaluated["margins"] = displacements, margins
    evaluated["violation"] = violation
    evaluated["outcome"] = int(Status.CONVERGED if met else Status.STALLED)
    return evaluated


def _most_violated(
    problem: Problem, result: "_core.Found", tolerance: float, max_iterations: int
) -> "_core.Found | None":
    """Make it feasible by the most-violated rule."""
    start = result["coefficients"]
    moved = replace(problem, outputs=problem.outputs + problem.gram @ start)
    pushes = min(max_iterations, _MAX_PUSHES)
    pushed = _core.pcr_most_violated(*moved.arrays, tolerance, pushes, 0)
    if pushed["outcome"] != Status.CONVERGED:
        return None
    return result | {
        "coefficients": start + pushed["coefficients"],
        "iterations": result["iterations"] + pushed["iterations"],
    }


def _beyond_concepts(problem: Problem, result: "_core.Found") -> "list[_core.Found]":
    """Move all outputs one way or the other until all concepts lie behind them.

    That meets every ball, if the inputs allow it.
    """
    m, n = problem.radius.shape
    if n == 0:
        return []
    ahead = problem.outputs.mean(axis=0) - problem.concepts.mean(axis=0)
    length = float(np.linalg.norm(ahead))
    direction = ahead / length if length > 0.0 else np.eye(len(ahead))[0]
    shares = np.linalg.lstsq(problem.gram, np.ones(m), rcond=None)[0]
    if not np.allclose(problem.gram @ shares, 1.0):
        return []
    starts = []
    for way in (direction, -direction):
        behind = (problem.concepts @ way)[None] - (problem.outputs @ way)[:, None]
        distance = float(np.max(behind + problem.radius, initial=0.0))
        starts.append(result | {"coefficients": distance * np.outer(shares, way)})
    return starts


def _cost(problem: Problem, result: "_core.Found") -> float:
    coefficients = result["coefficients"]
    return float(np.sum(coefficients * (problem.gram @ coefficients)))


def _step(
    problem: Problem, result: "_core.Found", tolerance: float, max_iterations: int
) -> "_core.Found | None":
    """Solve with every ball replaced by the half-space that touches it from here."""
    moved = problem.outputs + problem.gram @ result["coefficients"]
    prompts, concepts = np.nonzero(problem.radius > 0.0)
    away = moved[prompts] - problem.concepts[concepts]
    distances = np.linalg.norm(away, axis=1)
    if not np.all(distances > 0.0):
        return None
    away /= distances[:, None]
    tangents = np.full((len(moved), len(prompts)), np.inf)
    reach = np.sum(away * problem.concepts[concepts], axis=1)
    tangents[prompts, np.arange(len(prompts))] = -(
        reach + problem.radius[prompts, concepts]
    )
    flat = replace(
        problem,
        concepts=problem.concepts[:0],
        radius=problem.radius[:, :0],
        directions=np.concatenate([problem.directions, -away]),
        offsets=np.concatenate([problem.offsets, tangents], axis=1),
    )
    solved = _core.pcr_exact(*flat.arrays, tolerance, max_iterations, 0)
    if solved["outcome"] != Status.CONVERGED:
        return None
    k = len(problem.directions)
    multipliers = np.zeros((len(moved), len(problem.concepts) + k))
    tangent = solved["multipliers"][:, k:][prompts, np.arange(len(prompts))]
    multipliers[prompts, concepts] = tangent / distances
    multipliers[:, len(problem.concepts) :] = solved["multipliers"][:, :k]
    return result | {
        "coefficients": solved["coefficients"],
        "multipliers": multipliers,
        "iterations": result["iterations"] + solved["iterations"],
    }
