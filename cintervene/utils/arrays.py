# SPDX-License-Identifier: Apache-2.0
"""Arrays: their types, and facts about those of any library, without importing it."""

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Floats", "shape_of"]

Floats = npt.NDArray[np.float64]


def shape_of(x: Any) -> tuple[int, ...]:
    """Shape of an array, a buffer or nested lists."""
    return tuple(x.shape) if hasattr(x, "shape") else np.shape(x)
