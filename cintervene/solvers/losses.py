# SPDX-License-Identifier: Apache-2.0
"""Losses over logits."""

import math
from collections.abc import Sequence
from typing import Any, Literal, overload

import numpy as np
import numpy.typing as npt

from cintervene import _core
from cintervene.errors import ArgumentError, DtypeError
from cintervene.utils.arrays import Floats, shape_of

__all__ = ["TokenIds", "set_nll", "token_sets"]

TokenIds = npt.ArrayLike | Sequence[npt.ArrayLike]


@overload
def set_nll(
    logits: Any, token_ids: TokenIds, *, grad: Literal[False] = False
) -> Floats: ...
@overload
def set_nll(logits: Any, token_ids: TokenIds, *, grad: Any) -> tuple[Floats, Any]: ...


def set_nll(logits: Any, token_ids: TokenIds, *, grad: Any = False) -> Any:
    """Negative log probability of a set of tokens, for each row of logits.

    ``loss[i] = -log(sum(softmax(logits[i])[k] for k in K_i))``

    Parameters
    ----------
    logits : array_like, shape (..., vocab)
        NumPy, torch or JAX array of float32, float64, bfloat16 or float16. ``-inf``
        masks a token.
    token_ids : array_like of int, shape (k,), or one such set for each row
        A flat set is shared by all rows. A list of sets, or an array (rows, k), gives
        each row its own. A token named twice counts once.
    grad : bool or array_like, optional
        True returns the gradient too; an array (like `logits`, of the gradient's
        dtype) receives it.

    Returns
    -------
    loss : ndarray, shape (rows,), float64
        One loss a row; leading axes of `logits` are flattened.
    grad : ndarray, like `logits`
        With `grad` only: derivative of ``loss.sum()``, float32 (float64 for float64
        logits). The array passed as `grad`, if one was.

    Raises
    ------
    NonFiniteError
        A logit is NaN or ``+inf``, or a whole row is ``-inf``.
    ArgumentError
        A token id is outside the vocabulary, a set is empty, or shapes do not match.
    DtypeError
        `logits` are no floating-point numbers, or `token_ids` no integers.
    """
    shape = shape_of(logits, "logits")
    if not shape:
        raise ArgumentError("logits: got a scalar; expected shape (..., vocab)")
    rows = math.prod(shape[:-1])
    ids, offsets = token_sets(token_ids, rows, shape[-1])
    return _core.set_nll(logits, ids, offsets, grad)


def token_sets(
    token_ids: TokenIds, rows: int, vocab: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Sorted unique ids of all sets end to end, and where each set starts."""
    sets = _split(token_ids)
    sizes = np.array([len(s) for s in sets], dtype=np.int64)
    if not sets or not sizes.all():
        raise ArgumentError("token_ids: a set is empty; expected at least one token")
    flat = np.concatenate(sets)
    if flat.dtype.kind not in "iu":
        raise DtypeError(f"token_ids: got {flat.dtype}; expected integers")
    outside = (flat < 0) | (flat >= vocab)
    if outside.any():
        raise ArgumentError(
            f"token_ids: got {flat[outside][0]}; expected ids in [0, {vocab})"
        )
    owner = np.repeat(np.arange(len(sets), dtype=np.int64), sizes)
    owner, ids = np.divmod(np.unique(owner * vocab + flat.astype(np.int64)), vocab)
    if len(sets) not in (1, rows):
        raise ArgumentError(
            f"token_ids: got {len(sets)} sets for {rows} rows of logits; "
            "expected one set for each row, or one flat set for all"
        )
    return ids, np.searchsorted(owner, np.arange(len(sets) + 1), side="left")


def _split(token_ids: Any) -> list[npt.NDArray[Any]]:
    """The sets as 1-D arrays; one when they are shared by all rows."""
    if isinstance(token_ids, (list, tuple)):
        axes = {len(shape_of(one, "token_ids")) for one in token_ids}
        if axes == {1}:
            return [_core.plain(one, "token_ids") for one in token_ids]
    sets = _core.plain(token_ids, "token_ids")
    if sets.ndim not in (1, 2):
        raise ArgumentError(
            f"token_ids: has {sets.ndim} axes; expected a flat set, a list of "
            "sets, or an array (rows, k)"
        )
    return [sets] if sets.ndim == 1 else list(sets)
