# SPDX-License-Identifier: Apache-2.0
"""The same numbers in every kind of array that the library takes."""

import ml_dtypes
import numpy as np
import pytest

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = [np.dtype(t) for t in ("float32", "float64", "float16")] + [BFLOAT16]


def misaligned(x):
    """A view that starts one byte off its natural alignment."""
    raw = np.zeros(x.nbytes + 1, dtype=np.uint8)
    view = raw[1:].view(x.dtype).reshape(x.shape)
    view[...] = x
    return view


def column_strided(x):
    wide = np.zeros((*x.shape[:-1], 3 * x.shape[-1]), dtype=x.dtype)
    wide[..., ::3] = x
    return wide[..., ::3]


def row_strided(x):
    wide = np.zeros((*x.shape[:-1], x.shape[-1] + 5), dtype=x.dtype)
    wide[..., 2 : 2 + x.shape[-1]] = x
    return wide[..., 2 : 2 + x.shape[-1]]


def reversed_rows(x):
    return np.ascontiguousarray(x[::-1])[::-1]


def read_only(x):
    copy = x.copy()
    copy.flags.writeable = False
    return copy


NUMPY_LAYOUTS = {
    "contiguous": np.ascontiguousarray,
    "fortran": np.asfortranarray,
    "column_strided": column_strided,
    "row_strided": row_strided,
    "reversed_rows": reversed_rows,
    "read_only": read_only,
    "misaligned": misaligned,
}


def to_torch(x):
    torch = pytest.importorskip("torch")
    if x.dtype == BFLOAT16:
        return torch.from_numpy(x.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(x.copy())


def from_torch(x):
    """Exact values as float64."""
    return x.detach().double().numpy()
