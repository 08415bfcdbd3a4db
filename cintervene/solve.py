# SPDX-License-Identifier: Apache-2.0
"""The smallest change of a weight that moves outputs out of forbidden regions."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cintervene import _core
from cintervene.errors import ArgumentError
from cintervene.preserve import Preserve
from cintervene.solution import Solution, Status
from cintervene.update import LowRankUpdate

__all__ = ["pcr"]

Floats = npt.NDArray[np.float64]

_METHODS: dict[str, Callable[..., "_core.Found"]] = {
    "most_violated": _core.pcr_most_violated,
}
_HISTORY = ("violation", "cost", "lower_bound", "prompt", "constraint")
_HISTORY_ROWS = 10_000


def pcr(
    inputs: Any,
    outputs: Any,
    concepts: Any,
    radius: npt.ArrayLike,
    *,
    preserve: Preserve | None = None,
    slack: float = 0.0,
    halfspaces: tuple[Any, npt.ArrayLike] | None = None,
    method: str = "most_violated",
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
    method : {"most_violated"}
        How to solve.
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
    problem = _prepare(inputs, outputs, concepts, radius, preserve, slack, halfspaces)
    _check_options(tolerance, max_iterations)
    found = solver(
        problem.gram,
        problem.outputs,
        problem.concepts,
        problem.radius,
        problem.directions,
        problem.offsets,
        float(tolerance),
        int(max_iterations),
        min(int(max_iterations), _HISTORY_ROWS),
    )
    return _wrap(problem, found)


@dataclass(frozen=True)
class _Problem:
    """The reduced problem, every array float64."""

    dual_inputs: Floats  # H P^-1 (m, d_in)
    true_gram: Floats  # H P^-1 H' (m, m)
    gram: Floats  # the same with slack
    outputs: Floats  # (m, d_out)
    concepts: Floats  # (n, d_out)
    radius: Floats  # (m, n)
    directions: Floats  # (k, d_out)
    offsets: Floats  # (m, k)


def _choose(method: str) -> Callable[..., "_core.Found"]:
    if method not in _METHODS:
        valid = ", ".join(repr(name) for name in _METHODS)
        raise ArgumentError(f"method: got {method!r}; expected one of {valid}")
    return _METHODS[method]


def _check_options(tolerance: float, max_iterations: int) -> None:
    if not 0.0 < tolerance < np.inf:
        raise ArgumentError(f"tolerance: got {tolerance}; expected a positive number")
    if max_iterations < 0:
        raise ArgumentError(f"max_iterations: got {max_iterations}; expected >= 0")


def _prepare(
    inputs: Any,
    outputs: Any,
    concepts: Any,
    radius: npt.ArrayLike,
    preserve: Preserve | None,
    slack: float,
    halfspaces: tuple[Any, npt.ArrayLike] | None,
) -> _Problem:
    h = _matrix(inputs, "inputs")
    o = _matrix(outputs, "outputs")
    if len(h) != len(o):
        raise ArgumentError(
            f"outputs: has {len(o)} rows; expected {len(h)}, one for each row of inputs"
        )
    d_out = o.shape[1]
    if d_out == 0:
        raise ArgumentError("outputs: have no columns; expected at least one")
    c = np.zeros((0, d_out)) if concepts is None else _matrix(concepts, "concepts")
    u, offsets = _halfspaces(halfspaces, len(h), d_out)
    for name, rows in (("concepts", c), ("halfspaces[0]", u)):
        if len(rows) > 0 and rows.shape[1] != d_out:
            raise ArgumentError(
                f"{name}: has {rows.shape[1]} columns; expected {d_out}, "
                "the dimension of the outputs"
            )
    dual = h if preserve is None else preserve.solve(h)
    true_gram, gram = _gram_matrices(h, dual, slack)
    return _Problem(
        dual_inputs=dual,
        true_gram=true_gram,
        gram=gram,
        outputs=o,
        concepts=c.reshape(len(c), d_out),
        radius=_radius(radius, len(h), len(c)),
        directions=u.reshape(len(u), d_out),
        offsets=offsets,
    )


def _matrix(x: Any, name: str) -> Floats:
    wide = _core.widen(x, name)
    if wide.ndim != 2:
        raise ArgumentError(
            f"{name}: got shape {wide.shape}; expected two axes, one row a sample. "
            f"Use {name}[None] for a single one"
        )
    return wide


def _gram_matrices(h: Floats, dual: Floats, slack: float) -> tuple[Floats, Floats]:
    if not 0.0 <= slack < np.inf:
        raise ArgumentError(f"slack: got {slack}; expected a number >= 0")
    product = _core.product_nt(h, dual)
    true_gram = (product + product.T) / 2
    diagonal = true_gram.diagonal()
    gram = true_gram
    if slack > 0.0 and len(h) > 0:
        gram = true_gram + slack * diagonal.mean() * np.eye(len(h))
    dead = np.flatnonzero(~(gram.diagonal() > 0.0))
    if len(dead) > 0:
        raise ArgumentError(
            f"inputs: row {dead[0]} is zero, so no change of the weight moves its "
            "output; leave that row out"
        )
    return true_gram, gram


def _radius(radius: npt.ArrayLike, m: int, n: int) -> Floats:
    given = np.asarray(radius, dtype=np.float64)
    if given.shape not in ((), (n,), (m, n)):
        raise ArgumentError(
            f"radius: got shape {given.shape}; expected a number, ({n},) or ({m}, {n})"
        )
    if not np.all((given >= 0.0) & (given < np.inf)):
        raise ArgumentError(
            "radius: has a negative or non-finite element; expected distances >= 0"
        )
    return np.array(np.broadcast_to(given, (m, n)))


def _halfspaces(
    halfspaces: tuple[Any, npt.ArrayLike] | None, m: int, d_out: int
) -> tuple[Floats, Floats]:
    if halfspaces is None:
        return np.zeros((0, d_out)), np.zeros((m, 0))
    directions, offsets = halfspaces
    u = _matrix(directions, "halfspaces[0]")
    k = len(u)
    given = np.asarray(offsets, dtype=np.float64)
    if given.shape not in ((), (k,), (m, k)):
        raise ArgumentError(
            f"halfspaces[1]: got shape {given.shape}; expected a number, ({k},) or "
            f"({m}, {k})"
        )
    if not np.all(given > -np.inf):
        raise ArgumentError(
            "halfspaces[1]: has an element that is NaN or -inf; expected numbers, or "
            "+inf to switch a pair off"
        )
    empty = np.flatnonzero(~np.any(u != 0.0, axis=1))
    if len(empty) > 0:
        raise ArgumentError(f"halfspaces[0]: row {empty[0]} is zero; leave it out")
    return u, np.array(np.broadcast_to(given, (m, k)))


def _margins(problem: _Problem, displacements: Floats) -> tuple[Floats, Floats]:
    """Distance minus radius, and offset minus product, for the moved outputs."""
    both = _core.pcr_margins(
        problem.outputs + displacements,
        problem.outputs,
        problem.concepts,
        problem.radius,
        problem.directions,
        problem.offsets,
    )
    n = len(problem.concepts)
    return both[:, :n], both[:, n:]


def _worst_violation(problem: _Problem, balls: Floats, halves: Floats) -> float:
    """Largest violation, as a length."""
    lengths = np.linalg.norm(problem.directions, axis=1)
    return float(
        max(
            np.max(-balls, where=problem.radius > 0.0, initial=0.0),
            np.max(-halves / lengths, initial=0.0),
        )
    )


def _wrap(problem: _Problem, found: "_core.Found") -> Solution:
    coefficients: Floats = found["coefficients"]
    used = np.flatnonzero(np.any(coefficients != 0.0, axis=1))
    slack_displacements = _core.product_nn(problem.gram, coefficients)
    slack_balls, slack_halves = _margins(problem, slack_displacements)
    if problem.gram is problem.true_gram:
        displacements, balls, halves = slack_displacements, slack_balls, slack_halves
    else:
        displacements = _core.product_nn(problem.true_gram, coefficients)
        balls, halves = _margins(problem, displacements)
    violation = _worst_violation(problem, slack_balls, slack_halves)
    history = found["history"][: found["history_rows"]]
    multipliers = found["multipliers"]
    return Solution(
        update=LowRankUpdate(
            np.ascontiguousarray(coefficients[used].T), problem.dual_inputs[used]
        ),
        cost=float(np.sum(coefficients * slack_displacements)),
        status=Status(found["outcome"]),
        iterations=found["iterations"],
        displacements=displacements,
        margins=balls,
        halfspace_margins=halves,
        slack_displacements=slack_displacements,
        slack_margins=slack_balls,
        slack_halfspace_margins=slack_halves,
        multipliers=None if np.isnan(multipliers).any() else multipliers,
        lower_bound=found["lower_bound"],
        residuals={"feasibility": violation / (found["unit"] or 1.0)},
        history={
            name: column
            for name, column in zip(_HISTORY, history.T, strict=True)
            if not np.isnan(column).all()
        },
    )
