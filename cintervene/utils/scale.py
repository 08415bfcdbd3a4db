# SPDX-License-Identifier: Apache-2.0
"""Sizes of numbers whose squares are still numbers."""

from typing import Any

import numpy as np
import numpy.typing as npt

from cintervene.errors import ArgumentError

__all__ = [
    "GREATEST", "LEAST", "check_scale", "check_size", "largest", "scaled", "unscaled",
]  # fmt: skip

# Squares of these, and sums of a hundred million of them, neither overflow nor vanish.
LEAST, GREATEST = 1e-150, 1e150
# Exponent of two up to which squares of products of two such numbers are numbers.
_ORDINARY = 200


def largest(array: npt.NDArray[np.floating]) -> float:
    """Size of the largest element; 0 where there is none."""
    if array.size == 0:
        return 0.0
    return max(float(array.max()), -float(array.min()))


def scaled(array: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], int]:
    """The array over a power of two, and its exponent, so that it can be squared.

    The exponent is 0, and nothing copied, unless the largest element is far from 1.
    """
    exponent = int(np.frexp(largest(array))[1])
    if abs(exponent) <= _ORDINARY:
        return array, 0
    return np.ldexp(array, -exponent), exponent


def unscaled(number: float, exponent: int) -> float:
    """The number times two to the exponent; inf or 0 where that is none."""
    with np.errstate(over="ignore", under="ignore"):
        return float(np.ldexp(number, exponent))


def check_scale(name: str, array: npt.NDArray[np.float64]) -> float:
    """Refuse an array whose squares would overflow or vanish.

    Parameters
    ----------
    name : str
        What the message calls it.
    array : ndarray of float64, finite

    Returns
    -------
    float
        Size of the largest element; 0 where there is none.

    Raises
    ------
    ArgumentError
        The largest element is neither 0 nor from 1e-150 to 1e150 in size.
    """
    return check_size(name, largest(array))


def check_size(name: str, size: float) -> float:
    """The same, told the size of the largest element."""
    if size > GREATEST or 0.0 < size < LEAST:
        raise ArgumentError(
            f"{name}: the largest element is {size:.3g} in size; expected "
            f"{LEAST:g} to {GREATEST:g}, as its square is needed. Use another unit"
        )
    return size
