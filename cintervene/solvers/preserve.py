# SPDX-License-Identifier: Apache-2.0
"""The norm that measures a change by what it does to benign inputs."""

from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np

from cintervene import _core
from cintervene.errors import ArgumentError, SingularSystemError
from cintervene.solvers.update import LowRankUpdate
from cintervene.utils.arrays import Floats, shape_of
from cintervene.utils.lazy import lazy
from cintervene.utils.scale import GREATEST, LEAST, scaled, unscaled
from cintervene.utils.validation import check_positive

__all__ = ["BenignMoments", "Preserve"]


class Preserve:
    r"""The norm ``||delta||_P**2 = tr(delta P delta')`` of a change of a weight.

    ``P = ridge I + X'X / N`` for N benign inputs X: `ridge` times the squared
    Frobenius norm, plus the mean squared change of the layer's benign outputs. A
    large ridge gives the plain norm, a small one leaves benign outputs as they are. See
    docs/methods/pcr.md (3).

    P itself is formed only when there are more inputs than dimensions; otherwise an
    (N, N) factor does the same.

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
        rows, d_in = _matrix_shape(benign_inputs, "benign_inputs")
        self._statistics: _Statistics
        if rows > d_in:
            self._statistics = BenignMoments(d_in).add(benign_inputs)
        else:
            self._statistics = _Rows(_widened(benign_inputs, "benign_inputs"))
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
        d_in, columns = _matrix_shape(matrix, "matrix")
        given = _widened(matrix, "matrix")
        if d_in != columns or not np.allclose(given, given.T, rtol=1e-6, atol=0.0):
            raise ArgumentError(
                f"matrix: got shape {(d_in, columns)}; expected a symmetric matrix. "
                "Pass (P + P.T) / 2"
            )
        return cls._of(BenignMoments._of(_Gathered(given, 1)), ridge=0.0)

    @classmethod
    def _of(cls, statistics: "_Statistics", ridge: float) -> Self:
        self = cls.__new__(cls)
        self._statistics = statistics
        self.ridge = ridge
        return self

    def with_ridge(
        self, ridge: float = 1e-2, *, ridge_absolute: float | None = None
    ) -> "Preserve":
        """Return the same benign inputs under another ridge, sharing their memory."""
        absolute = _absolute_ridge(self._statistics, ridge, ridge_absolute)
        return Preserve._of(self._statistics, absolute)

    @property
    def d_in(self) -> int:
        """Dimension of the inputs."""
        return self._statistics.d_in

    @lazy
    def _factor(self) -> Floats:
        system = self._statistics.system(self.ridge)
        try:
            return _core.spd_factor(system)
        except SingularSystemError:
            raise SingularSystemError(
                f"ridge: P is singular at a ridge of {self.ridge:.3g}; raise it"
            ) from None

    def factor(self) -> "Preserve":
        """Factor P now rather than when :meth:`solve` is first called; returns self.

        Raises
        ------
        SingularSystemError
            P is not positive definite.
        """
        _ = self._factor
        return self

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
        wide = _widened(inputs, "inputs")
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
            rows, exponent = scaled(_widened(update, "rows"))
            square = np.trace(self.gram(rows))
        return unscaled(np.sqrt(max(square, 0.0)), exponent)

    def gram(self, rows: Any) -> Floats:
        """``rows P rows'`` of rows (m, d_in) that act on the layer's inputs."""
        self._check_width(rows, "rows")
        wide = _widened(rows, "rows")
        return self.ridge * _core.product_nt(wide, wide) + self._statistics.quadratic(
            wide
        )

    def _check_width(self, rows: Any, name: str) -> None:
        width = _matrix_shape(rows, name)[1]
        if width != self.d_in:
            raise ArgumentError(
                f"{name}: has {width} columns; expected {self.d_in}, the dimension of "
                "the benign inputs. Use activations of the same layer"
            )


@dataclass(frozen=True)
class _Gathered:
    """Sum of the outer products of inputs, and how many inputs that were."""

    sum: Floats
    count: float


class BenignMoments:
    """Second moments of benign inputs, gathered chunk by chunk in bounded memory.

    Holds one (d_in, d_in) float64 matrix, and a second one while a chunk is added: an
    addition that fails or is interrupted leaves the moments as they were. Chunks must
    be added, and parts merged, in the same order to give the same bits.

    Parameters
    ----------
    d_in : int
        Dimension of the inputs.
    """

    def __init__(self, d_in: int) -> None:
        if d_in < 1:
            raise ArgumentError(f"d_in: got {d_in}; expected at least 1")
        self.d_in = d_in
        self._gathered = _Gathered(np.zeros((d_in, d_in)), 0)

    @classmethod
    def _of(cls, gathered: _Gathered) -> Self:
        self = cls.__new__(cls)
        self.d_in = len(gathered.sum)
        self._gathered = gathered
        return self

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
        rows, width = _matrix_shape(chunk, "chunk")
        if width != self.d_in:
            raise ArgumentError(
                f"chunk: has {width} columns; expected {self.d_in}. Use activations "
                "of the same layer"
            )
        _core.check_finite(chunk, "chunk")
        total = _core.moment_add(chunk, self._gathered.sum.copy())
        self._gathered = _Gathered(total, self.count + rows)
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
        total = self._gathered.sum + weight * other._gathered.sum
        self._gathered = _Gathered(total, self.count + weight * other.count)
        return self

    def preserve(
        self, ridge: float = 1e-2, *, ridge_absolute: float | None = None
    ) -> Preserve:
        """Return the norm that these inputs define; later additions do not alter it."""
        frozen = BenignMoments._of(self._gathered)
        return Preserve._of(frozen, _absolute_ridge(frozen, ridge, ridge_absolute))

    @property
    def mean_square(self) -> float:
        """Mean squared element of the inputs."""
        return float(np.trace(self._gathered.sum)) / max(self.count * self.d_in, 1)

    def system(self, ridge: float) -> Floats:
        """Return P."""
        matrix = self._gathered.sum / max(self.count, 1)
        matrix[np.diag_indices(self.d_in)] += ridge
        return matrix

    def solve(self, factor: Floats, ridge: float, inputs: Floats) -> Floats:
        """``inputs P^-1``, written over `inputs`."""
        del ridge
        return _core.spd_solve(factor, inputs)

    def quadratic(self, rows: Floats) -> Floats:
        """``rows (X'X / N) rows'``."""
        half = _core.product_nn(rows, self._gathered.sum)
        return _core.product_nt(half, rows) / max(self.count, 1)


class _Rows:
    """Benign inputs kept as they are: for fewer of them than dimensions."""

    def __init__(self, rows: Floats) -> None:
        self.rows = rows
        self.count, self.d_in = int(rows.shape[0]), int(rows.shape[1])

    @property
    def mean_square(self) -> float:
        return float(np.sum(np.square(self.rows))) / max(self.rows.size, 1)

    def system(self, ridge: float) -> Floats:
        """``XX' + N ridge I``."""
        matrix = _core.product_nt(self.rows, self.rows)
        matrix[np.diag_indices(self.count)] += self.count * ridge
        return matrix

    def solve(self, factor: Floats, ridge: float, inputs: Floats) -> Floats:
        """``(H - H X' (XX' + N ridge I)^-1 X) / ridge``."""
        weights = _core.product_nt(inputs, self.rows)
        _core.spd_solve(factor, weights)
        inputs -= _core.product_nn(weights, self.rows)
        inputs /= ridge
        return inputs

    def quadratic(self, rows: Floats) -> Floats:
        """``rows (X'X / N) rows'``."""
        responses = _core.product_nt(rows, self.rows)
        return _core.product_nt(responses, responses) / max(self.count, 1)


class _Statistics(Protocol):
    d_in: int

    @property
    def mean_square(self) -> float: ...
    def system(self, ridge: float) -> Floats: ...
    def solve(self, factor: Floats, ridge: float, inputs: Floats) -> Floats: ...
    def quadratic(self, rows: Floats) -> Floats: ...


def _widened(x: Any, name: str) -> Floats:
    """Float64 copy of a finite array with two axes."""
    wide, _ = _core.widen(x, name)
    _matrix_shape(wide, name)
    return wide


def _matrix_shape(x: Any, name: str) -> tuple[int, int]:
    shape = shape_of(x, name)
    if len(shape) != 2:
        raise ArgumentError(
            f"{name}: got shape {shape}; expected two axes, one row a sample"
        )
    return int(shape[0]), int(shape[1])


def _absolute_ridge(
    statistics: _Statistics, ridge: float, ridge_absolute: float | None
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
