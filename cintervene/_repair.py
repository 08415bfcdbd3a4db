# SPDX-License-Identifier: Apache-2.0
"""A feasible change where the exact solver found none.

The semidefinite relaxation behind it is tight when the outputs leave dimensions free.
Where they do not, its solution violates some constraints. Then the most-violated rule
makes it feasible, and a convex-concave procedure lowers the cost: near each output the
outside of a ball contains a half-space, and half-spaces are solved exactly.
"""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from cintervene import _core
from cintervene._problem import Problem
from cintervene.solution import Status

__all__ = ["repair"]

Floats = npt.NDArray[np.float64]

_PUSHES = 10_000
_ROUNDS = 100
_SETTLED = 1e-12


def repair(
    problem: Problem, found: "_core.Found", tolerance: float, max_iterations: int
) -> "_core.Found":
    """Turn a stalled result into a locally optimal one, if that can be done."""
    start = found["coefficients"]
    moved = replace(problem, outputs=problem.outputs + problem.gram @ start)
    pushes = min(max_iterations, _PUSHES)
    pushed = _core.pcr_most_violated(*moved.arrays, tolerance, pushes, 0)
    if pushed["outcome"] != Status.CONVERGED:
        return found
    best = found | {
        "coefficients": start + pushed["coefficients"],
        "iterations": found["iterations"] + pushed["iterations"],
        "outcome": int(Status.CONVERGED),
    }
    for _ in range(_ROUNDS):
        better = _improve(problem, best, tolerance, max_iterations)
        if better is None:
            break
        gain = 1.0 - _cost(problem, better) / _cost(problem, best)
        best = better if gain > 0.0 else best
        if gain <= _SETTLED:
            break
    return best


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
