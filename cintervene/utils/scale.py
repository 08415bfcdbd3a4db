# SPDX-License-Identifier: Apache-2.0
"""Sizes of numbers whose squares are still numbers."""

import numpy as np
import numpy.typing as npt

from cintervene.errors import ArgumentError

__all__ = ["GREATEST", "LEAST", "check_scale", "largest"]

# Squares of these, and sums of a hundred million of them, neither overflow nor vanish.
LEAST, GREATEST = 1e-150, 1e150


def largest(array: npt.NDArray[np.float64]) -> float:
    """Size of the largest element; 0 where there is none."""
    if array.size == 0:
        return 0.0
    return max(float(array.max()), -float(array.min()))


def check_scale(name: str, array: npt.NDArray[np.float64]) -> None:
    """Refuse an array whose squares would overflow or vanish.

    Parameters
    ----------
    name : str
        What the message calls it.
    array : ndarray of float64, finite

    Raises
    ------
    ArgumentError
        The largest element is neither 0 nor from 1e-150 to 1e150 in size.
    """
    size = largest(array)
    if size > GREATEST or 0.0 < size < LEAST:
        raise ArgumentError(
            f"{name}: the largest element is {size:.3g} in size; expected "
            f"{LEAST:g} to {GREATEST:g}, as its square is needed. Use another unit"
        )
