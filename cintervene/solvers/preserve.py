# SPDX-License-Identifier: Apache-2.0
"""The norm that measures a change by what it does to benign inputs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np

from cintervene import _core
from cintervene.errors import ArgumentError, SingularSystemError
from cintervene.solvers import packed
from cintervene.solvers.update import LowRankUpdate
from cintervene.utils.arrays import Floats, shape_of
from cintervene.utils.lazy import lazy
from cintervene.utils.scale import GREATEST, LEAST, scaled, unscaled
from cintervene.utils.validation import check_positive, check_whole

__all__ = ["BenignMoments", "Preserve"]

# Rows of a matrix that are measured at a time, and of inputs that are weighted. Sums
# over inputs go on in steps of so many whatever the rows of a chunk.
ROWS = 256


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
        d_in = _matrix_shape(benign_inputs, "benign_inputs")[1]
        _core.check_finite(benign_inputs, "benign_inputs")
        self._statistics: _Statistics
        self._statistics = _Chunks(d_in, (benign_inputs,), (1,)).statistics()
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
        return cls._of(_Sum(d_in, packed.pack(given), 1), ridge=0.0)

    @classmethod
    def _of(cls, statistics: "_Statistics", ridge: float) -> Self:
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
            parts = [rows[at : at + ROWS] for at in range(0, len(rows), ROWS)]
            square = np.sum([np.trace(self.gram(part)) for part in parts])
        return unscaled(np.sqrt(max(square, 0.0)), exponent)

    def gram(self, rows: Any) -> Floats:
        """``rows P rows'`` of rows (m, d_in) that act on the layer's inputs."""
        self._check_width(rows, "rows")
        wide = _widened(rows, "rows")
        return self._statistics.gram(self.ridge, wide)

    def _check_width(self, rows: Any, name: str) -> None:
        width = _matrix_shape(rows, name)[1]
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

    Holds the inputs themselves while they are no more than half of the dimensions, or
    take no more than half the memory of their moments; from then on the lower half of a
    (d_in, d_in) float64 matrix, with a second one while a chunk is added: an addition
    that fails or is interrupted leaves the moments as they were. Chunks must be added,
    and parts merged, in the same order to give the same bits.

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
        self._held: _Chunks | _Sum | None = _Chunks(d_in)
        # Whether a norm may read the sum that is held.
        self._lent = False

    @property
    def _gathered(self) -> "_Chunks | _Sum":
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
        width = _matrix_shape(chunk, "chunk")[1]
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
        self._held = _Chunks(self.d_in)
        if isinstance(statistics, _Sum):
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
        return _core.spd_solve(self._lower, _widened(inputs, "inputs"))

    def gram(self, rows: Any) -> Floats:
        self._check_width(rows, "rows")
        half = packed.times_lower(_widened(rows, "rows"), self._lower)
        return _core.product_nt(half, half)


@dataclass(frozen=True, eq=False)
class _Chunks:
    """Inputs as they were added.

    Attributes
    ----------
    d_in : int
    chunks : tuple of array_like
    weights : tuple of float
        Of each chunk's inputs.
    """

    d_in: int
    chunks: tuple[Any, ...] = ()
    weights: tuple[float, ...] = ()

    @property
    def count(self) -> float:
        pairs = zip(self.chunks, self.weights, strict=True)
        return sum(weight * _rows_of(chunk) for chunk, weight in pairs)

    def with_chunk(self, chunk: Any, own: bool) -> "_Chunks | _Sum":
        del own
        return self._with(_Chunks(self.d_in, (_own(chunk),), (1,)))

    def merged(
        self, other: "_Chunks | _Sum", weight: float, own: bool
    ) -> "_Chunks | _Sum":
        del own
        if isinstance(other, _Sum):
            # A sum that nobody else has seen.
            return self.summed().merged(other, weight, True)
        weights = tuple(weight * one for one in other.weights)
        return self._with(_Chunks(self.d_in, other.chunks, weights))

    def _with(self, other: "_Chunks") -> "_Chunks | _Sum":
        chunks = (*self.chunks, *other.chunks)
        both = _Chunks(self.d_in, chunks, (*self.weights, *other.weights))
        large = sum(chunk.nbytes for chunk in chunks) > 2 * self.d_in**2
        return both.summed() if large and both.many else both

    def summed(self) -> "_Sum":
        total = self.added_to(packed.zeros(self.d_in))
        return _Sum(self.d_in, total, self.count)

    def added_to(self, total: Floats, weight: float = 1.0) -> Floats:
        for chunk, own in zip(self.chunks, self.weights, strict=True):
            if weight * own == 1:
                _core.moment_add(chunk, total)
                continue
            # As wide as they are, all of them in float64 would be large.
            for start in range(0, _rows_of(chunk), ROWS):
                part = chunk[start : start + ROWS]
                _core.moment_add(_weighted(part, weight * own), total)
        return total

    @property
    def many(self) -> bool:
        """Whether their sum takes less memory and time than they do."""
        return 2 * sum(map(_rows_of, self.chunks)) > self.d_in

    def statistics(self) -> "_Rows | _Sum":
        if self.many:
            return self.summed()
        parts = [np.empty((0, self.d_in))]
        for chunk, weight in zip(self.chunks, self.weights, strict=True):
            parts.append(_widened(_weighted(chunk, weight), "benign_inputs"))
        return _Rows(np.concatenate(parts), self.count)


@dataclass(frozen=True, eq=False)
class _Sum:
    """Sum of the outer products of inputs, packed, and how many that were."""

    d_in: int
    sum: Floats
    count: float

    def with_chunk(self, chunk: Any, own: bool) -> "_Sum":
        total = _core.moment_add(chunk, self._total(own))
        return _Sum(self.d_in, total, self.count + _rows_of(chunk))

    def merged(self, other: "_Chunks | _Sum", weight: float, own: bool) -> "_Sum":
        total = other.added_to(self._total(own), weight)
        return _Sum(self.d_in, total, self.count + weight * other.count)

    def _total(self, own: bool) -> Floats:
        """What is added to: the sum itself, where it may be altered."""
        return self.sum if own else self.sum.copy()

    def added_to(self, total: Floats, weight: float) -> Floats:
        pairs = packed.block_rows(total, self.d_in), self._block_rows()
        for (_, _, rows), (_, _, own) in zip(*pairs, strict=True):
            rows += weight * own
        return total

    def summed(self) -> "_Sum":
        return self

    def statistics(self) -> "_Sum":
        return self

    def _block_rows(self) -> Iterator[tuple[int, int, Floats]]:
        return packed.block_rows(self.sum, self.d_in)

    @property
    def mean_square(self) -> float:
        return packed.trace(self.sum, self.d_in) / max(self.count * self.d_in, 1)

    def system(self, ridge: float, out: Floats | None = None) -> Floats:
        """Return P, packed, written to `out` if that is given."""
        system = np.divide(self.sum, max(self.count, 1), out=out)
        packed.add_to_diagonal(system, self.d_in, ridge)
        return system

    def solve(self, factor: Floats, ridge: float, inputs: Floats) -> Floats:
        """``inputs P^-1``, written over `inputs`."""
        del ridge
        return _core.spd_solve(factor, inputs)

    def gram(self, ridge: float, rows: Floats) -> Floats:
        """``rows P rows'``."""
        half = packed.times_symmetric(rows, self.sum)
        moved = _core.product_nt(half, rows) / max(self.count, 1)
        return ridge * _core.product_nt(rows, rows) + moved


@dataclass(frozen=True, eq=False)
class _Rows:
    """Inputs (n, d_in), each times the root of its weight; fewer than dimensions."""

    rows: Floats
    count: float

    @property
    def d_in(self) -> int:
        return int(self.rows.shape[1])

    @property
    def mean_square(self) -> float:
        return float(np.sum(np.square(self.rows))) / max(self.count * self.d_in, 1)

    def system(self, ridge: float) -> Floats:
        """``XX' + N ridge I``."""
        matrix = _core.product_nt(self.rows, self.rows)
        matrix[np.diag_indices(len(matrix))] += self.count * ridge
        return matrix

    def solve(self, factor: Floats, ridge: float, inputs: Floats) -> Floats:
        """``(H - H X' (XX' + N ridge I)^-1 X) / ridge``."""
        weights = _core.product_nt(inputs, self.rows)
        _core.spd_solve(factor, weights)
        inputs -= _core.product_nn(weights, self.rows)
        inputs /= ridge
        return inputs

    def gram(self, ridge: float, rows: Floats) -> Floats:
        """``rows P rows'``."""
        responses = _core.product_nt(rows, self.rows)
        moved = _core.product_nt(responses, responses) / max(self.count, 1)
        return ridge * _core.product_nt(rows, rows) + moved


# What makes more of what is held, and of whether that may be altered.
_Growth = Callable[[_Chunks | _Sum, bool], _Chunks | _Sum]


class _Statistics(Protocol):
    @property
    def d_in(self) -> int: ...
    @property
    def mean_square(self) -> float: ...
    def system(self, ridge: float) -> Floats: ...
    def solve(self, factor: Floats, ridge: float, inputs: Floats) -> Floats: ...
    def gram(self, ridge: float, rows: Floats) -> Floats: ...


def _factored(system: Floats, ridge: float) -> Floats:
    """The lower Cholesky factor of a system, written over it."""
    try:
        return _core.spd_factor(system)
    except SingularSystemError:
        raise SingularSystemError(
            f"ridge: P is singular at a ridge of {ridge:.3g}; raise it"
        ) from None


def _weighted(chunk: Any, weight: float) -> Any:
    """Inputs of which each counts so many times."""
    return chunk if weight == 1 else _core.as_float64(chunk) * np.sqrt(weight)


def _own(chunk: Any) -> Any:
    """A copy in the type that it has, of torch and NumPy; of others as float64."""
    if hasattr(chunk, "detach"):
        return chunk.detach().clone()
    return chunk.copy() if isinstance(chunk, np.ndarray) else _widened(chunk, "chunk")


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


def _rows_of(inputs: Any) -> int:
    """How many rows there are; what only exports its memory has no length."""
    return _matrix_shape(inputs, "inputs")[0]


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
