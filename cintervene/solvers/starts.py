# SPDX-License-Identifier: Apache-2.0
"""Where local descents of PCR begin when the exact solve proves nothing.

Balls alone can always be left: for almost every direction of the inputs' space all
outputs move, and once they have moved far enough all balls lie behind. With half-spaces
beside them nothing so simple will do, and random displacements of all sizes are tried.
"""

from collections.abc import Iterator

import numpy as np

from cintervene import _core
from cintervene.solvers.problem import Problem
from cintervene.utils.arrays import Floats

__all__ = ["starts"]

# Sizes of random displacements, in units of what the constraints ask for.
_SIZES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
_RANDOM_STARTS = 48
# Least part of the farthest moving output that any output moves on the way out.
_LEAST_MOVE = 1e-3
_WAYS = 8


def starts(
    problem: Problem, result: "_core.Found", lower_bound: float
) -> Iterator[Floats]:
    """Coefficients (m, d_out), the most promising first; the same at every call.

    Parameters
    ----------
    problem : Problem
    result : dict
        What the exact solve has come to.
    lower_bound : float
        What its multipliers prove, which tells how large a change must be.
    """
    rng = np.random.default_rng(0)
    if np.isfinite(result["coefficients"]).all():
        yield result["coefficients"]
        yield from _spread(problem, result, lower_bound, rng)
    yield from _ways_out(problem, rng)
    for number in range(_RANDOM_STARTS):
        size = _SIZES[number % len(_SIZES)] * result["unit"]
        yield size * _displacement(problem, rng)


def _spread(
    problem: Problem,
    result: "_core.Found",
    lower_bound: float,
    rng: np.random.Generator,
) -> Iterator[Floats]:
    """What the relaxation has beside its displacements, put along random directions.

    The semidefinite relaxation holds ``X - D D' = E E'`` where a direction is missing.
    E is along ``G N^1/2 v`` for the eigenvector v of ``I - N^1/2 G N^1/2`` with the
    least eigenvalue, and costs what the change falls short of the bound.
    """
    n = len(problem.concepts)
    balls = result["multipliers"][:, :n]
    root = np.sqrt(np.maximum(balls.sum(axis=1), 0.0))
    missing = lower_bound - _cost(problem, result["coefficients"])
    if not (missing > 0.0 and np.isfinite(root).all() and root.any()):
        return
    system = np.eye(len(root)) - root[:, None] * problem.gram * root
    direction = root * np.linalg.eigh(system)[1][:, 0]
    size = float(direction @ problem.gram @ direction)
    if size > 0.0:
        spread = np.sqrt(missing / size) * direction
        way = _unit_vector(problem, rng)
        for sign in (1.0, -1.0):
            yield result["coefficients"] + sign * np.outer(spread, way)


def _ways_out(problem: Problem, rng: np.random.Generator) -> Iterator[Floats]:
    """Move every output one way or the other until all concepts lie behind it."""
    m, n = problem.radius.shape
    if n == 0 or m == 0:
        return
    ahead = problem.outputs.mean(axis=0) - problem.concepts.mean(axis=0)
    length = float(np.linalg.norm(ahead))
    together = np.linalg.lstsq(problem.gram, np.ones(m), rcond=None)[0]
    for number in range(_WAYS):
        shares = together if number < 2 else rng.standard_normal(m)
        moves = problem.gram @ shares
        most = np.abs(moves).max()
        if not np.abs(moves).min() > _LEAST_MOVE * most:
            continue
        way = ahead / length if length > 0.0 and number < 2 else None
        way = _unit_vector(problem, rng) if way is None else way
        way = -way if number % 2 else way
        distance = _distance_out(problem, moves, way)
        yield distance * np.outer(shares, way)


def _distance_out(problem: Problem, moves: Floats, way: Floats) -> float:
    """How far to go so that each output has all balls behind it."""
    sides = np.sign(moves)
    concepts, outputs = problem.concepts @ way, problem.outputs @ way
    behind = sides[:, None] * (concepts[None] - outputs[:, None])
    needed = np.where(problem.radius > 0.0, behind + problem.radius, 0.0)
    return float(np.max(needed / np.abs(moves)[:, None], initial=0.0))


def _displacement(problem: Problem, rng: np.random.Generator) -> Floats:
    """Random coefficients that move an output by about 1."""
    coefficients = rng.standard_normal(problem.outputs.shape)
    moved = np.linalg.norm(problem.gram @ coefficients, axis=1)
    return coefficients / max(float(moved.max(initial=0.0)), np.finfo(float).tiny)


def _unit_vector(problem: Problem, rng: np.random.Generator) -> Floats:
    way = rng.standard_normal(problem.outputs.shape[1])
    return way / np.linalg.norm(way)


def _cost(problem: Problem, coefficients: Floats) -> float:
    return float(np.vdot(coefficients, problem.gram @ coefficients))
