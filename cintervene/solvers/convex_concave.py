# SPDX-License-Identifier: Apache-2.0
"""A feasible change where the exact solver found none.

The semidefinite relaxation behind it is tight when the outputs leave dimensions free.
Where they do not, its solution violates some constraints. Then the most-violated rule
makes it feasible, and a convex-concave procedure lowers the cost: near each output the
outside of a ball contains a half-space, and half-spaces are solved exactly.
"""

from dataclasses import replace

import numpy as np

from cintervene import _core
from cintervene.solvers.problem import Problem
from cintervene.solvers.solution import Status

__all__ = ["repair"]

_PUSHES = 10_000
_ROUNDS = 100
_SETTLED = 1e-12
# Relative move after which there is none, and gap below which that is waited for.
_RESTS = 1e-11
_CLOSE = 1e-4
# Above this gap a second start is worth its time.
_FAR = 1e-6


def repair(
    problem: Problem,
    found: "_core.Found",
    lower_bound: float,
    tolerance: float,
    max_iterations: int,
) -> "_core.Found":
    """Turn a stalled result into a locally optimal one, if that can be done."""
    best = _descend(problem, found, tolerance, max_iterations)
    if best is None or _cost(problem, best) > lower_bound * (1.0 + _FAR):
        pushed = _push(problem, found, tolerance, max_iterations)
        starts = [pushed] if pushed or best else _leave(problem, found)
        ends = [s and _descend(problem, s, tolerance, max_iterations) for s in starts]
        feasible = [result for result in (best, *ends) if result]
        best = min(feasible, key=lambda f: _cost(problem, f), default=None)
    return _judged(problem, best, tolerance) if best else found


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
    best = _improve(problem, start, tolerance, max_iterations)
    for _ in range(_ROUNDS):
        better = best and _improve(problem, best, tolerance, max_iterations)
        if not best or not better:
            break
        before, cost = _cost(problem, best), _cost(problem, better)
        if cost > before * (1.0 + _SETTLED):
            break
        settled = cost >= before * (1.0 - _SETTLED)
        rests = _distance(best, better) <= _RESTS
        # Multipliers belong to where a step began: the last step has the right ones.
        best = better
        near = near or (settled and cost <= _bound(problem, best) * (1.0 + _CLOSE))
        if settled and (rests or not near):
            break
    return best


def _bound(problem: Problem, found: "_core.Found") -> float:
    """Cost that its multipliers prove no change to be below."""
    proof = _core.pcr_certify(
        *problem.arrays, found["coefficients"], found["multipliers"]
    )
    return proof["lower_bound"]


def _distance(a: "_core.Found", b: "_core.Found") -> float:
    """Between two changes, relative to the second."""
    first, second = a["coefficients"], b["coefficients"]
    size = float(np.linalg.norm(second))
    return float(np.linalg.norm(first - second)) / (size if size > 0.0 else 1.0)


def _judged(problem: Problem, found: "_core.Found", tolerance: float) -> "_core.Found":
    """Bring everything that follows from the coefficients up to date."""
    displacements = _core.product_nn(problem.gram, found["coefficients"])
    margins = problem.margins(displacements)
    violation = problem.worst_violation(margins)
    met = violation <= 10.0 * tolerance * found["unit"]
    judged = found.copy()
    judged["displacements"], judged["margins"] = displacements, margins
    judged["violation"] = violation
    judged["outcome"] = int(Status.CONVERGED if met else Status.STALLED)
    return judged


def _push(
    problem: Problem, found: "_core.Found", tolerance: float, max_iterations: int
) -> "_core.Found | None":
    """Make it feasible by the most-violated rule."""
    start = found["coefficients"]
    moved = replace(problem, outputs=problem.outputs + problem.gram @ start)
    pushes = min(max_iterations, _PUSHES)
    pushed = _core.pcr_most_violated(*moved.arrays, tolerance, pushes, 0)
    if pushed["outcome"] != Status.CONVERGED:
        return None
    return found | {
        "coefficients": start + pushed["coefficients"],
        "iterations": found["iterations"] + pushed["iterations"],
    }


def _leave(problem: Problem, found: "_core.Found") -> "list[_core.Found]":
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
        starts.append(found | {"coefficients": distance * np.outer(shares, way)})
    return starts


def _cost(problem: Problem, found: "_core.Found") -> float:
    coefficients = found["coefficients"]
    return float(np.sum(coefficients * (problem.gram @ coefficients)))


def _improve(
    problem: Problem, found: "_core.Found", tolerance: float, max_iterations: int
) -> "_core.Found | None":
    """Solve with every ball replaced by the half-space that touches it from here."""
    moved = problem.outputs + problem.gram @ found["coefficients"]
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
    return found | {
        "coefficients": solved["coefficients"],
        "multipliers": multipliers,
        "iterations": found["iterations"] + solved["iterations"],
    }
