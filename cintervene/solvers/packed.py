# SPDX-License-Identifier: Apache-2.0
"""Symmetric and triangular matrices in half of their memory.

Of a matrix (n, n) the lower triangle is kept: `BLOCK` rows at a time as a matrix of
their own that ends with their diagonal block, one after the other in an array of one
axis. What is above the diagonal in the diagonal blocks is not defined. The core makes
sums, factors and solutions of it; this is what is done with its blocks in NumPy.
"""

from collections.abc import Iterator

import numpy as np

from cintervene.utils.arrays import Floats

__all__ = [
    "BLOCK",
    "add_to_diagonal",
    "block_rows",
    "inverse_columns",
    "pack",
    "times_lower",
    "times_symmetric",
    "trace",
    "zeros",
]

# As CIV_BLOCK in csrc/core/linalg/lower.h.
BLOCK = 256


def zeros(n: int) -> Floats:
    """The packed triangle of a matrix (n, n) of zeros."""
    whole, rest = divmod(n, BLOCK)
    return np.zeros(BLOCK * BLOCK * whole * (whole + 1) // 2 + rest * n)


def pack(matrix: Floats) -> Floats:
    """The lower triangle of a matrix (n, n)."""
    packed = zeros(len(matrix))
    for start, stop, rows in block_rows(packed, len(matrix)):
        rows[:] = matrix[start:stop, :stop]
    return packed


def block_rows(packed: Floats, n: int) -> Iterator[tuple[int, int, Floats]]:
    """First row, the one after the last, and a view (stop - start, stop) of each."""
    at = 0
    for start in range(0, n, BLOCK):
        stop = min(start + BLOCK, n)
        size = (stop - start) * stop
        yield start, stop, packed[at : at + size].reshape(stop - start, stop)
        at += size


def trace(packed: Floats, n: int) -> float:
    """Sum of the diagonal."""
    return float(np.sum([np.trace(b[:, s:]) for s, _, b in block_rows(packed, n)]))


def add_to_diagonal(packed: Floats, n: int, value: float) -> None:
    """Add a number to each element of the diagonal."""
    for start, _, rows in block_rows(packed, n):
        rows[:, start:][np.diag_indices(len(rows))] += value


def times_lower(rows: Floats, packed: Floats) -> Floats:
    """``rows L`` of rows (m, n) and a lower triangular matrix."""
    n = rows.shape[1]
    product = np.zeros_like(rows)
    for start, stop, block in block_rows(packed, n):
        own = rows[:, start:stop]
        for left in range(0, start, BLOCK):
            right = left + BLOCK
            product[:, left:right] += own @ block[:, left:right]
        product[:, start:stop] += own @ np.tril(block[:, start:])
    return product


def inverse_columns(packed: Floats, n: int, first: int) -> Floats:
    """A block of columns of the inverse of a lower triangular matrix, transposed.

    Parameters
    ----------
    packed : ndarray
    n : int
    first : int
        The first of the columns, a multiple of `BLOCK`.

    Returns
    -------
    ndarray, shape (columns, n - first)
        Without the zeros above the diagonal.
    """
    size = min(BLOCK, n - first)
    found = np.zeros((size, n - first))
    for start, stop, block in block_rows(packed, n):
        if start < first:
            continue
        own = slice(start - first, stop - first)
        if start == first:
            found[:, own] = np.eye(size)
        else:
            found[:, own] -= found[:, : own.start] @ block[:, first:start].T
        triangle = np.tril(block[:, start:])
        found[:, own] = np.linalg.solve(triangle, found[:, own].T).T
    return found


def times_symmetric(rows: Floats, packed: Floats) -> Floats:
    """``rows S`` of rows (m, n) and a symmetric matrix."""
    n = rows.shape[1]
    product = times_lower(rows, packed)
    for start, stop, block in block_rows(packed, n):
        product[:, start:stop] += rows[:, :start] @ block[:, :start].T
        above = np.tril(block[:, start:], -1).T
        product[:, start:stop] += rows[:, start:stop] @ above
    return product
