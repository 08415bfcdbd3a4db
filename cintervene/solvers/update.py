# SPDX-License-Identifier: Apache-2.0
"""Low-rank changes of a weight matrix."""

from numbers import Real
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from cintervene import _core
from cintervene.errors import ArgumentError
from cintervene.utils.arrays import Floats, shape_of
from cintervene.utils.forks import undivided
from cintervene.utils.scale import scaled, unscaled
from cintervene.utils.validation import check_not_negative, check_whole

__all__ = ["LowRankUpdate", "displacement"]

Array = npt.NDArray[Any]

# Of a matrix that is measured, how many are made at a time.
COLUMNS = 1024
_KEPT = (np.dtype(np.float32), np.dtype(np.float64))


class LowRankUpdate:
    """The change ``left @ right`` of a weight matrix, which is never formed.

    Updates of one shape form a vector space: ``a + b``, ``a - b``, ``-a`` and
    ``2 * a`` are updates again. The rank of a sum is the sum of the ranks;
    :meth:`compress` finds the least that will do. `cintervene.pcr` returns its change
    in this form, with ``left = A'`` and ``right = H P^-1`` of docs/methods/pcr.md (4),
    or with orthonormal rows in `right` where inputs are almost dependent.

    Parameters
    ----------
    left : array_like, shape (d_out, rank)
        Arrays of NumPy with dtype float32 or float64 are kept as they are; those of
        other libraries or dtypes become float64.
    right : array_like, shape (rank, d_in)
        As `left`.

    Raises
    ------
    ArgumentError
        The shapes do not match.
    NonFiniteError
        A factor holds NaN or infinity.

    Examples
    --------
    >>> import numpy as np
    >>> import cintervene as ci
    >>> update = ci.LowRankUpdate([[1.0], [2.0]], [[3.0, 0.0, 4.0]])
    >>> update
    LowRankUpdate(2 x 3, rank 1, float64)
    >>> update.apply(np.zeros((2, 3), np.float32))
    array([[3., 0., 4.],
           [6., 0., 8.]], dtype=float32)
    >>> (update + update).compress().rank
    1
    """

    # NumPy scalars must leave `scalar * update` to us.
    __array_ufunc__ = None

    def __init__(self, left: Any, right: Any) -> None:
        self.left = _factor(left, "left")
        self.right = _factor(right, "right")
        if self.left.shape[1] != self.right.shape[0]:
            raise ArgumentError(
                f"right: has shape {self.right.shape}; expected "
                f"({self.left.shape[1]}, d_in) to match left {self.left.shape}"
            )

    @classmethod
    def of_finite(cls, left: Array, right: Array) -> Self:
        """Of float64 factors whose shapes match and whose elements are known as finite.

        Looking at each element again takes as long as a small product with it.
        """
        update = cls.__new__(cls)
        update.left, update.right = left, right
        return update

    @classmethod
    def zero(cls, d_out: int, d_in: int) -> Self:
        """The update of rank 0 that changes nothing."""
        return cls(np.zeros((d_out, 0)), np.zeros((0, d_in)))

    @property
    def shape(self) -> tuple[int, int]:
        """(d_out, d_in) of the weight matrix."""
        return self.left.shape[0], self.right.shape[1]

    @property
    def rank(self) -> int:
        """Number of columns of `left`; an upper bound on the rank of the change."""
        return int(self.left.shape[1])

    @property
    @undivided
    def norm(self) -> float:
        """Frobenius norm of the change."""
        (left, of_left), (right, of_right) = scaled(self.left), scaled(self.right)
        if self.rank < min(self.shape):
            core = _triangle(left) @ _triangle(right.T).T
            size = float(np.linalg.norm(core))
        else:
            # The factors are no smaller than the matrix, and their triangles neither.
            size = _product_norm(left, right)
        return unscaled(size, of_left + of_right)

    @property
    def T(self) -> "LowRankUpdate":
        """The change of the transposed matrix, for layers that store it so."""
        return LowRankUpdate(self.right.T, self.left.T)

    def apply(self, W: Any, out: Any = None) -> Any:
        """Add the change to weights, in the weights' own type.

        Each element of ``W + left @ right`` is computed in float32 (float64 for
        float64 weights) and rounded once, to nearest even; what is beyond the range of
        that type becomes infinite, as in NumPy.

        Parameters
        ----------
        W : array_like, shape (d_out, d_in)
            NumPy array, torch CPU tensor or writable buffer of float32, float64,
            bfloat16 or float16, of any strides.
        out : array_like, optional
            Receives the result; shape and dtype of `W`, which then stays as it is. What
            it holds after an interrupted call is undefined; a `W` that is changed in
            place then is what it was.

        Returns
        -------
        array_like
            `out` if given, else `W`, changed in place.

        Raises
        ------
        ArgumentError
            The shape differs, or memory cannot be written or overlaps.
        """
        shape = shape_of(W, "W")
        if shape != self.shape:
            raise ArgumentError(
                f"W: has shape {shape}; expected {self.shape}. "
                "Use update.T for a layer that stores its weights transposed"
            )
        return _core.lowrank_apply(W, self.left, self.right, out)

    @undivided
    def matrix(self) -> Array:
        """The change as a dense matrix, shape (d_out, d_in)."""
        return np.asarray(self.left @ self.right)

    @undivided
    def compress(self, rank: int | None = None, tolerance: float = 0.0) -> Self:
        """The closest update of lower rank.

        Parameters
        ----------
        rank : int, optional
            Largest rank allowed; default: no limit.
        tolerance : float, optional
            Singular values up to this fraction of the largest are dropped, and those
            that are zero to working precision always.

        Returns
        -------
        LowRankUpdate
            With orthogonal columns in `left` and orthonormal rows in `right`; its
            dtype is that of the factors.

        Raises
        ------
        ArgumentError
            `rank` is no whole number from 0 on, or `tolerance` is negative or not
            finite.
        """
        if rank is not None:
            check_whole(0, rank=rank)
        check_not_negative(tolerance=tolerance)
        left_basis, left_core = np.linalg.qr(self.left.astype(np.float64))
        right_basis, right_core = np.linalg.qr(self.right.T.astype(np.float64))
        u, s, vt = np.linalg.svd(left_core @ right_core.T)
        noise = max(*self.shape, 1) * float(np.finfo(self.left.dtype).eps)
        floor = max(tolerance, noise) * (s[0] if s.size else 0.0)
        keep = int(np.sum(s > floor))
        keep = keep if rank is None else min(keep, rank)
        left = left_basis @ (u[:, :keep] * s[:keep])
        right = vt[:keep] @ right_basis.T
        return type(self)(left.astype(self.left.dtype), right.astype(self.right.dtype))

    def __mul__(self, factor: float) -> Self:
        if not isinstance(factor, Real):
            return NotImplemented
        scaled = self.left * self.left.dtype.type(factor)
        return type(self)(scaled, self.right)

    __rmul__ = __mul__

    def __neg__(self) -> Self:
        return self * -1.0

    def __add__(self, other: Self) -> Self:
        if not isinstance(other, LowRankUpdate):
            return NotImplemented
        if self.shape != other.shape:
            raise ArgumentError(
                f"cannot add an update of shape {other.shape} to one of {self.shape}"
            )
        return type(self)(
            np.concatenate([self.left, other.left], axis=1),
            np.concatenate([self.right, other.right], axis=0),
        )

    def __sub__(self, other: Self) -> Self:
        return self + (-other)

    def __repr__(self) -> str:
        d_out, d_in = self.shape
        return f"LowRankUpdate({d_out} x {d_in}, rank {self.rank}, {self.left.dtype})"


def displacement(base: Any, changed: Any, inputs: Any) -> Floats:
    """What a change of weights does to the outputs, after all rounding.

    Row j is ``(changed - base) @ inputs[j]``, in float64.

    Parameters
    ----------
    base, changed : array_like, shape (d_out, d_in)
        Weights before and after, of one dtype.
    inputs : array_like, shape (m, d_in)
        Inputs of the layer.

    Returns
    -------
    ndarray, shape (m, d_out), float64

    Raises
    ------
    ArgumentError
        Shapes do not match.
    DtypeError
        `base` and `changed` differ in dtype.
    """
    shape, after = shape_of(base, "base"), shape_of(changed, "changed")
    given = shape_of(inputs, "inputs")
    if shape != after:
        raise ArgumentError(
            f"changed: has shape {after}; expected that of base, {shape}"
        )
    if len(shape) != 2 or given[1:] != shape[1:]:
        raise ArgumentError(
            f"inputs: has shape {given}; expected (m, d_in) for weights "
            f"(d_out, d_in) of shape {shape}"
        )
    return _core.displacement(base, changed, inputs)


def _factor(value: Any, name: str) -> Array:
    """A 2-D finite float32 or float64 array."""
    array = value
    if not isinstance(value, np.ndarray) or value.dtype not in _KEPT:
        array, _ = _core.widen(value, name)
    if array.ndim != 2:
        raise ArgumentError(f"{name}: has {array.ndim} axes; expected 2")
    _core.check_finite(array, name)
    return np.asarray(array)


def _product_norm(left: Array, right: Array) -> float:
    """Frobenius norm of a product, of which some columns are made at a time."""
    wide = left.astype(np.float64, copy=False)
    norms = [
        np.linalg.norm(wide @ right[:, at : at + COLUMNS].astype(np.float64))
        for at in range(0, right.shape[1], COLUMNS)
    ]
    return float(np.linalg.norm(norms)) if norms else 0.0


def _triangle(tall: Array) -> Array:
    """R of the QR decomposition, which has the Gram matrix of `tall`."""
    return np.asarray(np.linalg.qr(tall.astype(np.float64), mode="r"))
