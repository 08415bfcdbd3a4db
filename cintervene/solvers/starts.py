# SPDX-License-Identifier: Apache-2.0
"""Where local descents of PCR begin when the exact solve proves nothing.

Balls alone can always be left: for almost every change of rank 1 all outputs move, and
once they have moved far enough all balls lie behind. On the way each ball forbids an
interval, so that the first free place is known; on a line it is the optimum. With
half-spaces there may be none, and random displacements of all sizes are tried.
"""

from __future__ import annotations

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
    problem: Problem, result: _core.Found, lower_bound: float
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
    known = bool(np.isfinite(result["coefficients"]).all())
    if known:
        yield result["coefficients"]
    yield from _ways_out(problem, rng)
    if known:
        yield from _spread(problem, result, lower_bound, rng)
    for number in range(_RANDOM_STARTS):
        size = _SIZES[number % len(_SIZES)] * result["unit"]
        yield size * _displacement(problem, rng)


def _spread(
    problem: Problem,
    result: _core.Found,
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
    missing = lower_bound - problem.cost(result["coefficients"])
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
    """Move the outputs one way or the other to the first free place."""
    m, d_out = problem.outputs.shape
    n = len(problem.concepts)
    together = np.linalg.lstsq(problem.gram, np.ones(m), rcond=None)[0]
    ahead = problem.outputs.mean(axis=0)
    if n > 0:
        ahead = ahead - problem.concepts.mean(axis=0)
    length = float(np.linalg.norm(ahead))
    first = ahead / length if length > 0.0 else np.eye(1, d_out)[0]
    for number in range(_WAYS):
        shares = together if number == 0 else rng.standard_normal(m)
        way = first if number == 0 else _unit_vector(problem, rng)
        moves = problem.gram @ shares
        if not np.abs(moves).min() > _LEAST_MOVE * np.abs(moves).max():
            continue
        for sign in (1.0, -1.0):
            distance = _first_free(problem, np.outer(sign * moves, way))
            if np.isfinite(distance):
                yield distance * np.outer(sign * shares, way)


def _first_free(problem: Problem, moves: Floats) -> float:
    """Least t >= 0 for which outputs + t moves meet all constraints; inf if none."""
    n = len(problem.concepts)
    margins = problem.margins(np.zeros_like(moves))
    along = np.sum(moves * problem.outputs, axis=1)[:, None]
    slope = along - moves @ problem.concepts.T
    square = np.square(moves).sum(axis=1)[:, None]
    excess = margins[:, :n] * (margins[:, :n] + 2.0 * problem.radius)
    root = slope**2 - square * excess
    inside = (problem.radius > 0.0) & (root > 0.0)
    width = np.sqrt(np.where(inside, root, 0.0))
    begins, ends = (-slope - width) / square, (-slope + width) / square
    speed = moves @ problem.directions.T
    level = margins[:, n:]
    with np.errstate(divide="ignore", invalid="ignore"):
        turn = level / speed
    closed = np.where(speed > 0.0, turn, np.where(level < 0.0, -np.inf, np.inf))
    opened = np.where((speed < 0.0) & (level < 0.0), turn, -np.inf)
    place = max(0.0, float(opened.max(initial=-np.inf)))
    limit = float(np.where(speed < 0.0, np.inf, closed).min(initial=np.inf))
    for begin, end in sorted(zip(begins[inside], ends[inside], strict=True)):
        if begin > place:
            break
        place = max(place, float(end))
    return place if place <= limit else float("inf")


def _displacement(problem: Problem, rng: np.random.Generator) -> Floats:
    """Random coefficients that move an output by about 1."""
    coefficients = rng.standard_normal(problem.outputs.shape)
    moved = np.linalg.norm(problem.gram @ coefficients, axis=1)
    return coefficients / max(float(moved.max(initial=0.0)), np.finfo(float).tiny)


def _unit_vector(problem: Problem, rng: np.random.Generator) -> Floats:
    way = rng.standard_normal(problem.outputs.shape[1])
    return np.asarray(way / np.linalg.norm(way))
