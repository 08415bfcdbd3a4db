# SPDX-License-Identifier: Apache-2.0
"""Nearest points of simple convex sets, over the last axis."""

from typing import Any

import numpy as np
import numpy.typing as npt

from cintervene import _core
from cintervene.errors import ArgumentError
from cintervene.utils.arrays import Floats, shape_of

__all__ = ["project_ball", "project_simplex"]


def project_ball(x: Any, radius: npt.ArrayLike, *, out: Any = None) -> Any:
    """Nearest point of the Euclidean ball around 0, for each vector on the last axis.

    Parameters
    ----------
    x : array_like, shape (..., d)
        NumPy, torch or JAX array of float32, float64, bfloat16 or float16. For the
        Frobenius norm of a whole matrix pass ``x.reshape(-1)``.
    radius : float or array_like, shape broadcastable to (...)
        Radius of the ball, at least 0; infinity leaves a vector as it is.
    out : array_like, optional
        Receives the result; shape and dtype of `x`. May be `x`. What it holds after a
        call that failed or was interrupted is undefined.

    Returns
    -------
    ndarray, like `x`
        Or `out`, if given. bfloat16 from other libraries than NumPy comes back as
        float32 unless `out` is given.

    Raises
    ------
    NonFiniteError
        `x` holds NaN or infinity.
    ArgumentError
        A radius is negative or NaN, or shapes do not match.
    """
    radii = np.asarray(radius, dtype=np.float64)
    if not np.all(radii >= 0):
        raise ArgumentError(
            f"radius: got {radii[~(radii >= 0)].flat[0]}; expected numbers >= 0"
        )
    if radii.ndim > 0:
        radii = _broadcast(radii, shape_of(x)[:-1])
    return _core.project_ball(x, radii.reshape(-1), out)


def project_simplex(x: Any, *, entropy: float | None = None, out: Any = None) -> Any:
    """Nearest probability vector, for each vector on the last axis.

    The nearest point of ``{p : p >= 0, p.sum() == 1}`` is ``max(x - t, 0)`` for the
    one threshold t that makes it sum to 1. It is found without sorting, in a time
    that is expected to grow linearly with the length of a vector.

    Parameters
    ----------
    x : array_like, shape (..., n)
        NumPy, torch or JAX array of float32, float64, bfloat16 or float16. ``-inf``
        excludes an entry.
    entropy : float, optional
        Admit only p of Gini entropy ``1 - (p**2).sum() <= entropy``, as attacks on
        relaxed prompts do: 0 leaves one-hot vectors, 1 - 1/n and more exclude nothing.
    out : array_like, optional
        Receives the result; shape and dtype of `x`. May be `x`. What it holds after a
        call that failed or was interrupted is undefined.

    Returns
    -------
    ndarray, like `x`
        Or `out`, if given. bfloat16 from other libraries than NumPy comes back as
        float32 unless `out` is given.

    Raises
    ------
    NonFiniteError
        `x` holds NaN or ``+inf``, or a vector is ``-inf`` throughout; `out` is then
        undefined.
    ArgumentError
        The last axis is empty, `entropy` is negative, or shapes do not match.

    Notes
    -----
    Under an entropy bound the set is not convex, but the nearest point is still found
    exactly: if the nearest point of the simplex is excluded, then the answer has the
    entropy asked for, ``(p**2).sum() == 1 - entropy``, and is the p of those with the
    largest inner product with x, which is ``max(x - t, 0) / c``. It is unique unless
    so many entries share the largest value that p can live on them alone; then the
    first of them is raised above the others. See docs/projections.md.
    """
    shape = shape_of(x)
    if shape and shape[-1] == 0 and int(np.prod(shape[:-1])) > 0:
        raise ArgumentError("x: its last axis is empty; expected at least one entry")
    if entropy is not None and not entropy >= 0.0:
        raise ArgumentError(f"entropy: got {entropy}; expected a number >= 0")
    return _core.project_simplex(x, 1.0 if entropy is None else float(entropy), out)


def _broadcast(radii: Floats, shape: tuple[int, ...]) -> Floats:
    try:
        return np.ascontiguousarray(np.broadcast_to(radii, shape))
    except ValueError:
        raise ArgumentError(
            f"radius: has shape {radii.shape}; expected a number, or a shape that "
            f"broadcasts to {shape}, one radius for each vector of x"
        ) from None
