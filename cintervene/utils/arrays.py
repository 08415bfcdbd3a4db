# SPDX-License-Identifier: Apache-2.0
"""Arrays: their types, and facts about those of any library, without importing it."""

from typing import Any

import numpy as np
import numpy.typing as npt

from cintervene import _core
from cintervene.errors import ArgumentError

__all__ = ["Floats", "numbers", "shape_of"]

Floats = npt.NDArray[np.float64]


def shape_of(x: Any, name: str) -> tuple[int, ...]:
    """Shape of an array, a buffer or nested lists; `name` is that of the argument.

    Raises
    ------
    ArgumentError
        It has no shape, as ragged lists and nested tensors.
    """
    try:
        shape = x.shape if hasattr(x, "shape") else np.shape(x)
        return tuple(int(length) for length in shape)
    except MemoryError:
        raise
    except Exception as error:
        raise ArgumentError(
            f"{name}: has no shape ({type(error).__name__}: {str(error)[:100]!r}); "
            "expected an array, or nested lists of equal lengths. Pass a NumPy array"
        ) from error


def numbers(x: Any, name: str) -> Floats:
    """Float64 copy of a number, or of an array of any library or nested lists of them.

    Other than in arrays of samples, whole numbers are fine.

    Raises
    ------
    ArgumentError, DtypeError
        There are no numbers in memory that could be read.
    """
    wide = _core.numbers(x, name)
    return wide if shape_of(x, name) else wide.reshape(())
