# SPDX-License-Identifier: Apache-2.0
"""Facts about arrays of any library, without importing it."""

from typing import Any

import numpy as np

__all__ = ["shape_of"]


def shape_of(x: Any) -> tuple[int, ...]:
    """Shape of an array, a buffer or nested lists."""
    return tuple(x.shape) if hasattr(x, "shape") else np.shape(x)
