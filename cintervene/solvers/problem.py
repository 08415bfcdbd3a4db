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
from cintervene.solvers.preserve import Preserve
from cintervene.utils.arrays import Floats, numbers
from cintervene.utils.validation import check_not_negative

__all__ = ["Problem", "gram_matrices", "matrix", "prepare"]


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
    inputs: Any,
    outputs: Any,
    concepts: Any,
    radius: npt.ArrayLike,
    preserve: Preserve | None,
    slack: float,
    halfspaces: tuple[Any, npt.ArrayLike] | None,
) -> Problem:
    """Check the arguments of a solve and reduce them to float64 arrays."""
    h = matrix(inputs, "inputs")
    o = matrix(outputs, "outputs")
    if len(h) != len(o):
        raise ArgumentError(
            f"outputs: has {len(o)} rows; expected {len(h)}, one for each row of inputs"
        )
    d_out = o.shape[1]
    if d_out == 0:
        raise ArgumentError("outputs: have no columns; expected at least one")
    c = np.zeros((0, d_out)) if concepts is None else matrix(concepts, "concepts")
    u, offsets = _halfspaces(halfspaces, len(h), d_out)
    for name, rows in (("concepts", c), ("halfspaces[0]", u)):
        if len(rows) > 0 and rows.shape[1] != d_out:
            raise ArgumentError(
                f"{name}: has {rows.shape[1]} columns; expected {d_out}, "
                "the dimension of the outputs"
            )
    dual = h if preserve is None else preserve.solve(h)
    true_gram, gram = gram_matrices(h, dual, slack)
    dead = np.flatnonzero(~(gram.diagonal() > 0.0))
    if len(dead) > 0:
        raise ArgumentError(
            f"inputs: row {dead[0]} is zero, so no change of the weight moves its "
            "output; leave that row out"
        )
    return Problem(
        dual_inputs=dual,
        true_gram=true_gram,
        gram=gram,
        outputs=o,
        concepts=c.reshape(len(c), d_out),
        radius=_radius(radius, len(h), len(c)),
        directions=u.reshape(len(u), d_out),
        offsets=offsets,
    )


def matrix(x: Any, name: str) -> Floats:
    """Return a float64 copy of a finite array with two axes."""
    wide = _core.widen(x, name)
    if wide.ndim != 2:
        raise ArgumentError(
            f"{name}: got shape {wide.shape}; expected two axes, one row a sample. "
            f"Use {name}[None] for a single one"
        )
    return wide


def gram_matrices(h: Floats, dual: Floats, slack: float) -> tuple[Floats, Floats]:
    """``G = H P^-1 H'`` as it is, and with slack, ``G + rho mean(diag G) I``."""
    check_not_negative(slack=slack)
    true_gram = gram = _core.gram(h, dual)
    if slack > 0.0 and len(h) > 0:
        gram = true_gram.copy()
        gram[np.diag_indices(len(h))] += slack * true_gram.diagonal().mean()
    return true_gram, gram


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
    return u, np.array(np.broadcast_to(given, (m, k)))
