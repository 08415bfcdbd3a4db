# SPDX-License-Identifier: Apache-2.0
"""The norm that measures a change by what it does to benign inputs."""

from collections.abc import Callable
from typing import Any, Self

import numpy as np

from cintervene import _core
from cintervene.errors import ArgumentError, SingularSystemError
from cintervene.solvers import packed
from cintervene.solvers.benign_inputs import (
    ROWS,
    Chunks,
    Statistics,
    Sum,
    matrix_shape,
    widened,
)
from cintervene.solvers.update import LowRankUpdate
from cintervene.utils.arrays import Floats
from cintervene.utils.lazy import lazy
from cintervene.utils.scale import GREATEST, LEAST, scaled, unscaled
from cintervene.utils.validation import check_positive, check_whole

__all__ = ["BenignMoments", "Preserve"]


class Preserve:
    r"""The norm ``||delta||_P**2 = tr(delta P delta')`` of a change of a weight.

    ``P = ridge I + X'X / N`` for N benign inputs X: `ridge` times the squared
    Frobenius norm, plus the mean squared change of the layer's benign outputs. A
    large ridge gives the plain norm, a small one leaves benign outputs as they are. See
    docs/methods/pcr.md (3).

    P itself is formed only when there are more inputs than half the dimensions, and
    of it the lower half alone; otherwise an (N, N) factor does the same, in less time.

    Parameters
    ----------
    benign_inputs : array_like, shape (N, d_in)
        Inputs of the layer on benign text; NumPy, torch or JAX, any float dtype.
    ridge : float
        Relative to the mean squared input ``tr(X'X) / (N d_in)``, so that one number
        fits all layers.
    ridge_absolute : float, optional
        The ridge itself; replaces `ridge`.

    Raises
    ------
    ArgumentError
        A shape or the ridge makes no sense, or the inputs are all zero.
    NonFiniteError
        An input is NaN or infinite.

    References
    ----------
    Its limit for a small ridge is the null-space projection of AlphaEdit, arXiv
    2410.02355; for a large one the Frobenius norm of arXiv 2510.03567.

    Examples
    --------
    Changes that act on the first input cost more, for that is what benign text uses:

    >>> import cintervene as ci
    >>> preserve = ci.Preserve([[3.0, 0.0], [0.0, 1.0]], ridge_absolute=1.0)
    >>> round(preserve.norm(ci.LowRankUpdate([[1.0]], [[1.0, 0.0]])), 3)
    2.345
    >>> round(preserve.norm(ci.LowRankUpdate([[1.0]], [[0.0, 1.0]])), 3)
    1.225
    """

    def __init__(
        self,
        benign_inputs: Any,
        ridge: float = 1e-2,
        *,
        ridge_absolute: float | None = None,
    ) -> None:
        d_in = matrix_shape(benign_inputs, "benign_inputs")[1]
        _core.check_finite(benign_inputs, "benign_inputs")
        self._statistics: Statistics
        self._statistics = Chunks(d_in, (benign_inputs,), (1,)).statistics()
        self.ridge = _absolute_ridge(self._statistics, ridge, ridge_absolute)

    @classmethod
    def from_matrix(cls, matrix: Any) -> "Preserve":
        """Use a symmetric positive definite P (d_in, d_in) as it is.

        Raises
        ------
        ArgumentError
            `matrix` is not square and symmetric.
        SingularSystemError
            On first use, when `matrix` is not positive definite.
        """
        d_in, columns = matrix_shape(matrix, "matrix")
        given = widened(matrix, "matrix")
        if d_in != columns or not np.allclose(given, given.T, rtol=1e-6, atol=0.0):
            raise ArgumentError(
                f"matrix: got shape {(d_in, columns)}; expected a symmetric matrix. "
                "Pass (P + P.T) / 2"
            )
        return cls._of(Sum(d_in, packed.pack(given), 1), ridge=0.0)

    @classmethod
    def _of(cls, statistics: "Statistics", ridge: float) -> Self:
        self = cls.__new__(cls)
        self._statistics = statistics
        self.ridge = ridge
        return self

    def with_ridge(
        self, ridge: float = 1e-2, *, ridge_absolute: float | None = None
    ) -> "Preserve":
        """Return the same benign inputs under another ridge, sharing their memory.

        Raises
        ------
        ArgumentError
            The ridge makes no sense, or the norm is one of `BenignMoments.factored`.
        """
        absolute = _absolute_ridge(self._statistics, ridge, ridge_absolute)
        return Preserve._of(self._statistics, absolute)

    @property
    def d_in(self) -> int:
        """Dimension of the inputs."""
        return self._statistics.d_in

    @lazy
    def _factor(self) -> Floats:
        return _factored(self._statistics.system(self.ridge), self.ridge)

    def solve(self, inputs: Any) -> Floats:
        """``inputs P^-1``, the right factor of the representer form (4).

        Parameters
        ----------
        inputs : array_like, shape (m, d_in)

        Returns
        -------
        ndarray, shape (m, d_in), float64

        Raises
        ------
        ArgumentError
            The width of `inputs` is not that of the benign inputs.
        SingularSystemError
            P is not positive definite.
        """
        self._check_width(inputs, "inputs")
        wide = widened(inputs, "inputs")
        return self._statistics.solve(self._factor, self.ridge, wide)

    def norm(self, update: Any) -> float:
        """``||update||_P`` of a LowRankUpdate, or of a matrix (d_out, d_in)."""
        if isinstance(update, LowRankUpdate):
            left, exponent = scaled(update.left)
            rows, of_rows = scaled(update.right)
            weights = _core.product_nt(left.T, left.T)
            square = np.sum(weights * self.gram(rows))
            exponent += of_rows
        else:
            self._check_width(update, "rows")
            rows, exponent = scaled(widened(update, "rows"))
            parts = [rows[at : at + ROWS] for at in range(0, len(rows), ROWS)]
            square = np.sum([np.trace(self.gram(part)) for part in parts])
        return unscaled(np.sqrt(max(square, 0.0)), exponent)

    def gram(self, rows: Any) -> Floats:
        """``rows P rows'`` of rows (m, d_in) that act on the layer's inputs."""
        self._check_width(rows, "rows")
        wide = widened(rows, "rows")
        return self._statistics.gram(self.ridge, wide)

    def _check_width(self, rows: Any, name: str) -> None:
        width = matrix_shape(rows, name)[1]
        if width != self.d_in:
            raise ArgumentError(
                f"{name}: has {width} columns; expected {self.d_in}, the dimension of "
                "the benign inputs. Use activations of the same layer"
            )


def dual_inputs(inputs: Floats, preserve: Preserve | None) -> Floats:
    """Return ``H P^-1`` for inputs H (m, d_in), which are themselves in the plain norm.

    Raises
    ------
    ArgumentError
        `preserve` is no norm, or one of another dimension.
    """
    if preserve is None:
        return inputs
    if not isinstance(preserve, Preserve):
        raise ArgumentError(
            f"preserve: got {type(preserve).__name__}; expected a cintervene.Preserve. "
            "Make one of benign inputs: Preserve(inputs), or of moments: "
            "moments.preserve()"
        )
    return preserve.solve(inputs)


class BenignMoments:
    """Second moments of benign inputs, gathered chunk by chunk in bounded memory.

    Holds the inputs themselves while they are no more than half of the dimensions; from
    then on the lower half of a (d_in, d_in) float64 matrix, with a second one while a
    chunk is added: an addition that fails or is interrupted leaves the moments as they
    were. Chunks must be added, and parts merged, in the same order to give the same
    bits.

    Parameters
    ----------
    d_in : int
        Dimension of the inputs.
    in_place : bool, default False
        Add to the matrix itself, without a second one. An addition that is interrupted
        then leaves moments that refuse whatever is asked of them. The sums are the same
        to the bit.

    Raises
    ------
    ArgumentError
        `d_in` is no whole number from 1 on.
    """

    def __init__(self, d_in: int, *, in_place: bool = False) -> None:
        check_whole(1, d_in=d_in)
        self.d_in = int(d_in)
        self._in_place = in_place
        self._held: Chunks | Sum | None = Chunks(d_in)
        # Whether a norm may read the sum that is held.
        self._lent = False

    @property
    def _gathered(self) -> "Chunks | Sum":
        """What is held.

        Raises
        ------
        ArgumentError
            An addition in place was interrupted.
        """
        if self._held is None:
            raise ArgumentError(
                "moments: an addition in place was interrupted, and left a part of its "
                "chunk in them; gather them anew, or without in_place="
            )
        return self._held

    def _extend(self, more: "_Growth") -> None:
        """Let what is held grow, by a function of it and whether it may be altered."""
        held = self._gathered
        if self._in_place and not self._lent:
            # What is raised on the way finds nothing that looks whole.
            self._held = None
            self._held = more(held, True)
        else:
            self._held, self._lent = more(held, False), False

    @property
    def count(self) -> float:
        """How many inputs were added, by their weights."""
        return self._gathered.count

    def add(self, chunk: Any) -> "BenignMoments":
        """Add inputs (N, d_in) of any float dtype; returns self.

        Raises
        ------
        ArgumentError
            The width is not `d_in`.
        NonFiniteError
            An input is NaN or infinite.
        """
        width = matrix_shape(chunk, "chunk")[1]
        if width != self.d_in:
            raise ArgumentError(
                f"chunk: has {width} columns; expected {self.d_in}. Use activations "
                "of the same layer"
            )
        _core.check_finite(chunk, "chunk")
        self._extend(lambda held, own: held.with_chunk(chunk, own))
        return self

    def merge(self, other: "BenignMoments", weight: float = 1.0) -> "BenignMoments":
        """Add the moments gathered by another; returns self.

        Parameters
        ----------
        other : BenignMoments
        weight : float
            How often each of its inputs counts.

        Raises
        ------
        ArgumentError
            The widths differ, or the weight is negative.
        """
        if other.d_in != self.d_in:
            raise ArgumentError(f"other: has d_in {other.d_in}; expected {self.d_in}")
        if not 0.0 <= weight < np.inf:
            raise ArgumentError(f"weight: got {weight}; expected a number >= 0")
        theirs = other._gathered
        self._extend(lambda held, own: held.merged(theirs, weight, own))
        return self

    def preserve(
        self, ridge: float = 1e-2, *, ridge_absolute: float | None = None
    ) -> Preserve:
        """Return the norm that these inputs define; later additions do not alter it."""
        statistics = self._gathered.statistics()
        absolute = _absolute_ridge(statistics, ridge, ridge_absolute)
        self._lent = True
        return Preserve._of(statistics, absolute)

    def factored(
        self, ridge: float = 1e-2, *, ridge_absolute: float | None = None
    ) -> Preserve:
        """The norm that these inputs define, factored now and for half of the memory.

        The moments give up what they hold, and are empty afterwards. The norm keeps a
        factor of P alone, so that its ridge cannot be changed.

        Raises
        ------
        ArgumentError
            The ridge makes no sense, or there are no inputs.
        SingularSystemError
            P is not positive definite.
        """
        statistics = self._gathered.statistics()
        absolute = _absolute_ridge(statistics, ridge, ridge_absolute)
        self._held = Chunks(self.d_in)
        if isinstance(statistics, Sum):
            triangle = statistics.sum.copy() if self._lent else statistics.sum
            system = statistics.system(absolute, triangle)
            return _FactoredNorm(self.d_in, system, absolute)
        preserve = Preserve._of(statistics, absolute)
        _ = preserve._factor
        return preserve


class _FactoredNorm(Preserve):
    """A norm of which the lower Cholesky factor L of P alone is kept.

    Parameters
    ----------
    d_in : int
    system : ndarray
        P, a packed triangle that is overwritten.
    ridge : float
        What it has on its diagonal.
    """

    def __init__(self, d_in: int, system: Floats, ridge: float) -> None:
        self._d_in, self.ridge = d_in, ridge
        self._lower = _factored(system, ridge)

    @property
    def d_in(self) -> int:
        return self._d_in

    def with_ridge(
        self, ridge: float = 1e-2, *, ridge_absolute: float | None = None
    ) -> Preserve:
        raise ArgumentError(
            "ridge: cannot be changed where the factor alone was kept; make the norm "
            "with BenignMoments.preserve"
        )

    def solve(self, inputs: Any) -> Floats:
        self._check_width(inputs, "inputs")
        return _core.spd_solve(self._lower, widened(inputs, "inputs"))

    def gram(self, rows: Any) -> Floats:
        self._check_width(rows, "rows")
        half = packed.times_lower(widened(rows, "rows"), self._lower)
        return _core.product_nt(half, half)


# What makes more of what is held, and of whether that may be altered.
_Growth = Callable[[Chunks | Sum, bool], Chunks | Sum]


def _factored(system: Floats, ridge: float) -> Floats:
    """The lower Cholesky factor of a system, written over it."""
    try:
        return _core.spd_factor(system)
    except SingularSystemError:
        raise SingularSystemError(
            f"ridge: P is singular at a ridge of {ridge:.3g}; raise it"
        ) from None


def _absolute_ridge(
    statistics: Statistics, ridge: float, ridge_absolute: float | None
) -> float:
    name = "ridge" if ridge_absolute is None else "ridge_absolute"
    given = ridge if ridge_absolute is None else ridge_absolute
    check_positive(**{name: given})
    absolute = ridge * statistics.mean_square if ridge_absolute is None else given
    if not absolute > 0.0:
        raise ArgumentError(
            "benign_inputs: all zero or none at all; a relative ridge needs a scale. "
            "Add benign inputs or pass ridge_absolute"
        )
    if not LEAST**2 <= absolute <= GREATEST**2:
        raise ArgumentError(
            f"{name}: comes to {absolute:.3g} times the identity; expected "
            f"{LEAST**2:g} to {GREATEST**2:g}. Use another unit for the benign inputs"
        )
    return float(absolute)
