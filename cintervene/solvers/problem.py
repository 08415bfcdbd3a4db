# SPDX-License-Identifier: Apache-2.0
"""From a layer's inputs and outputs to the small problem that is solved.

This is the representer form, docs/methods/pcr.md (4), and slack, (7).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cintervene import _core
from cintervene.errors import ArgumentError
from cintervene.solvers.preserve import Preserve, dual_inputs
from cintervene.utils.arrays import Floats, numbers
from cintervene.utils.scale import GREATEST, LEAST, check_scale, check_size
from cintervene.utils.validation import check_not_negative

__all__ = [
    "MeasuredInputs",
    "Problem",
    "check_price",
    "gram_matrices",
    "matrix",
    "prepare",
]

# Size that coefficients of a change may have, and the root of its cost.
_GREATEST = 1e140
# Columns that show of nearly every row that it is not too small.
_GLANCE = 16


@dataclass(frozen=True, eq=False)
class MeasuredInputs:
    """Inputs of a layer and all that a norm makes of them, for any number of problems.

    Attributes
    ----------
    given : array_like, shape (m, d_in)
    preserve : Preserve or None
        The norm of a change; None for the plain one.
    dual : ndarray, shape (m, d_in)
        ``H P^-1``.
    gram : ndarray, shape (m, m)
        ``H P^-1 H'``.
    """

    given: Any
    preserve: Preserve | None
    dual: Floats
    gram: Floats

    @classmethod
    def of(cls, inputs: Any, preserve: Preserve | None = None) -> "MeasuredInputs":
        """Check inputs (m, d_in), and measure them.

        Raises
        ------
        ArgumentError, NonFiniteError
            As `cintervene.pcr`.
        """
        h = matrix(inputs, "inputs")
        _check_inputs(h)
        dual = dual_inputs(h, preserve)
        gram = _core.gram(h, dual)
        _check_gram(gram)
        return cls(inputs, preserve, dual, gram)

    @property
    def wide(self) -> Floats:
        """The inputs as float64."""
        return self.dual if self.preserve is None else _core.as_float64(self.given)


@dataclass(frozen=True)
class Problem:
    """The reduced problem: m prompts, n concepts, k directions; every array float64."""

    dual_inputs: Floats  # H P^-1 (m, d_in)
    true_gram: Floats  # H P^-1 H' (m, m)
    gram: Floats  # the same with slack
    outputs: Floats  # (m, d_out)
    concepts: Floats  # (n, d_out)
    radius: Floats  # (m, n)
    directions: Floats  # (k, d_out)
    offsets: Floats  # (m, k)
    size: float  # largest element of outputs and concepts

    @property
    def arrays(self) -> tuple[Floats, Floats, Floats, Floats, Floats, Floats]:
        """The arrays in the order in which the core takes them."""
        return (
            self.gram,
            self.outputs,
            self.concepts,
            self.radius,
            self.directions,
            self.offsets,
        )

    def margins(self, displacements: Floats) -> Floats:
        """Distance minus radius, and offset minus product, for the moved outputs."""
        return _core.pcr_margins(self.outputs + displacements, *self.arrays[1:])

    def cost(self, coefficients: Floats) -> float:
        """What a change costs, slack included; (m, d_out) coefficients."""
        return float(np.vdot(coefficients, self.gram @ coefficients))

    def worst_violation(self, margins: Floats) -> float:
        """Largest violation, as a length."""
        n = len(self.concepts)
        balls, halves = margins[:, :n], margins[:, n:]
        lengths = np.linalg.norm(self.directions, axis=1)
        return float(
            max(
                np.max(-balls, where=self.radius > 0.0, initial=0.0),
                np.max(-halves / lengths, initial=0.0),
            )
        )


def prepare(
    inputs: MeasuredInputs,
    outputs: Any,
    concepts: Any,
    radius: npt.ArrayLike,
    slack: float,
    halfspaces: tuple[Any, npt.ArrayLike] | None,
) -> Problem:
    """Check the arguments of a solve and reduce them to float64 arrays."""
    m = len(inputs.gram)
    o, size = _measured(outputs, "outputs")
    if len(o) != m:
        raise ArgumentError(
            f"outputs: has {len(o)} rows; expected {m}, one for each row of inputs"
        )
    d_out = o.shape[1]
    if d_out == 0:
        raise ArgumentError("outputs: have no columns; expected at least one")
    c, longest = np.zeros((0, d_out)), 0.0
    if concepts is not None:
        c, longest = _measured(concepts, "concepts")
    u, offsets = _halfspaces(halfspaces, m, d_out)
    for name, rows in (("concepts", c), ("halfspaces[0]", u)):
        if len(rows) > 0 and rows.shape[1] != d_out:
            raise ArgumentError(
                f"{name}: has {rows.shape[1]} columns; expected {d_out}, "
                "the dimension of the outputs"
            )
    return Problem(
        dual_inputs=inputs.dual,
        true_gram=inputs.gram,
        gram=_with_slack(inputs.gram, slack),
        outputs=o,
        concepts=c.reshape(len(c), d_out),
        radius=_radius(radius, m, len(c)),
        directions=u.reshape(len(u), d_out),
        offsets=offsets,
        size=max(size, longest),
    )


def check_price(problem: Problem, unit: float) -> None:
    """Refuse inputs so far from the outputs in scale that a cost is no number.

    Parameters
    ----------
    problem : Problem
    unit : float
        The length that a solve is about; 0 where there is nothing to do.

    Raises
    ------
    ArgumentError
        The cost of moving an output by `unit`, or the coefficients for it, overflow or
        vanish.
    """
    if unit == 0.0:
        return
    squares = problem.gram.diagonal()
    for gram in (float(squares.min()), float(squares.max())):
        cost = unit * (unit / gram)
        if not (_usable(unit / gram, _GREATEST) and _usable(cost, _GREATEST**2)):
            raise ArgumentError(
                f"inputs: to move an output by {unit:.3g} takes {unit / gram:.3g} "
                f"times an input of squared length {gram:.3g}, and costs {cost:.3g}; "
                f"expected {1 / _GREATEST:g} to {_GREATEST:g}, and squares of these "
                "for the cost. Use another unit for inputs or outputs"
            )


def _usable(number: float, greatest: float) -> bool:
    return 1.0 / greatest < number < greatest


def _check_inputs(h: Floats) -> None:
    # A glance at the first columns clears nearly all rows.
    glance = np.abs(h[:, :_GLANCE]).max(axis=1, initial=0.0)
    for row in np.flatnonzero(glance < LEAST):
        if check_scale(f"inputs[{row}]", h[row]) == 0.0:
            raise ArgumentError(
                f"inputs: row {row} is zero, so no change of the weight moves its "
                "output; leave that row out"
            )


def _check_gram(gram: Floats) -> None:
    usable = (gram.diagonal() >= LEAST**2) & np.isfinite(gram).all(axis=1)
    if not usable.all():
        row = int(np.flatnonzero(~usable)[0])
        raise ArgumentError(
            f"inputs: the squared length of row {row} is {gram[row, row]:.3g}; "
            f"expected {LEAST**2:g} or more, and finite. Use another unit, or a larger "
            "ridge"
        )


def matrix(x: Any, name: str) -> Floats:
    """Return a float64 copy of an array with two axes, whose squares are finite."""
    return _measured(x, name)[0]


def _measured(x: Any, name: str) -> tuple[Floats, float]:
    """The same, and the size of the largest element."""
    wide, size = _core.widen(x, name)
    if wide.ndim != 2:
        raise ArgumentError(
            f"{name}: got shape {wide.shape}; expected two axes, one row a sample. "
            f"Use {name}[None] for a single one"
        )
    return wide, check_size(name, size)


def gram_matrices(h: Floats, dual: Floats, slack: float) -> tuple[Floats, Floats]:
    """``G = H P^-1 H'`` as it is, and with slack, ``G + rho mean(diag G) I``."""
    true_gram = _core.gram(h, dual)
    return true_gram, _with_slack(true_gram, slack)


def _with_slack(gram: Floats, slack: float) -> Floats:
    check_not_negative(slack=slack)
    if slack > 0.0 and len(gram) > 0:
        with np.errstate(over="ignore"):
            added = slack * gram.diagonal().mean()
        if not np.isfinite(added + gram.max()):
            raise ArgumentError(
                f"slack: got {slack:.3g}, which times the mean squared input is no "
                "number; expected a share of about 1 or less"
            )
        gram = gram.copy()
        gram[np.diag_indices(len(gram))] += added
    return gram


def _radius(radius: npt.ArrayLike, m: int, n: int) -> Floats:
    given = numbers(radius, "radius")
    if given.shape not in ((), (n,), (m, n)):
        raise ArgumentError(
            f"radius: got shape {given.shape}; expected a number, ({n},) or ({m}, {n})"
        )
    if not np.all((given >= 0.0) & (given < np.inf)):
        raise ArgumentError(
            "radius: has a negative or non-finite element; expected distances >= 0"
        )
    used = given[given > 0.0]
    check_scale("radius", used)
    if used.size > 0:
        check_scale("radius", used.min(keepdims=True))
    return np.array(np.broadcast_to(given, (m, n)))


def _halfspaces(
    halfspaces: tuple[Any, npt.ArrayLike] | None, m: int, d_out: int
) -> tuple[Floats, Floats]:
    if halfspaces is None:
        return np.zeros((0, d_out)), np.zeros((m, 0))
    if not isinstance(halfspaces, (tuple, list)) or len(halfspaces) != 2:
        raise ArgumentError(
            f"halfspaces: got {type(halfspaces).__name__}; expected a pair of arrays. "
            "Write (directions, offsets)"
        )
    directions, offsets = halfspaces
    u = matrix(directions, "halfspaces[0]")
    k = len(u)
    given = numbers(offsets, "halfspaces[1]")
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
    for row, direction in enumerate(u):
        check_scale(f"halfspaces[0][{row}]", direction)
    lengths = np.linalg.norm(u, axis=1)
    finite = np.where(np.isfinite(given), given, 0.0)
    if np.any(np.abs(finite) / GREATEST > lengths):
        raise ArgumentError(
            "halfspaces[1]: an offset is more than 1e150 times the length of its "
            "direction; expected +inf to switch a pair off, or a smaller one"
        )
    return u, np.array(np.broadcast_to(given, (m, k)))
