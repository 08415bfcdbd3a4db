# SPDX-License-Identifier: Apache-2.0
"""Changes as pairs of factors of one rank, the form in which adapters hold them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cintervene.errors import ArgumentError, InterventionError
from cintervene.intervention.intervention import Intervention
from cintervene.models.weights import dtype_name, is_finite
from cintervene.solvers.update import LowRankUpdate
from cintervene.utils.validation import check_whole

Array = npt.NDArray[Any]
DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@dataclass(frozen=True, eq=False)
class Factors:
    """The change ``b @ a`` of one weight, as stored.

    Attributes
    ----------
    a : Tensor, shape (rank, d_in)
    b : Tensor, shape (d_out, rank)
    """

    a: Tensor
    b: Tensor

    @property
    def update(self) -> LowRankUpdate:
        """The change that is stored, after the rounding to the factors' type."""
        return LowRankUpdate(self.b.float().numpy(), self.a.float().numpy())


def uniform(
    intervention: Intervention, dtype: str = "float32", max_rank: int | None = None
) -> dict[str, Factors]:
    """Return the factors of every weight, filled up with zeros to one rank.

    Parameters
    ----------
    intervention : Intervention
    dtype : {"float32", "bfloat16", "float16"}
    max_rank : int, optional
        Changes of a higher rank are cut to the closest one of it, in the Frobenius
        norm.

    Raises
    ------
    ArgumentError
        `dtype` is none of these, or `max_rank` is below 1.
    InterventionError
        A factor is out of the range of `dtype`, the product out of that or of the
        weight's type, or all ranks are 0.
    """
    if dtype not in DTYPES:
        raise ArgumentError(
            f"dtype: got {dtype!r}, expected one of {', '.join(DTYPES)}"
        )
    updates = dict(intervention.updates)
    if max_rank is not None:
        check_whole(1, max_rank=max_rank)
        updates = {
            name: one.compress(max_rank) if one.rank > max_rank else one
            for name, one in updates.items()
        }
    rank = max(update.rank for update in updates.values())
    if rank == 0:
        raise InterventionError("the intervention changes nothing: all ranks are 0")
    factors = {name: pair(u, rank, DTYPES[dtype]) for name, u in updates.items()}
    for name, one in factors.items():
        if not (is_finite(one.a) and is_finite(one.b)):
            raise InterventionError(
                f"{name}: a factor is out of the range of {DTYPES[dtype]}; use float32"
            )
        # What merges an adapter computes the product in one of these types.
        types = (form.dtype for form in intervention.edits[name].forms)
        for used in (DTYPES[dtype], *types):
            if not _product_within(one, torch.finfo(used).max):
                raise InterventionError(
                    f"{name}: the product of the factors is out of the range of "
                    f"{dtype_name(used)}; scale the intervention down, or use a wider "
                    "type"
                )
    return factors


def relative_errors(
    intervention: Intervention, stored: Mapping[str, LowRankUpdate]
) -> dict[str, float]:
    """Return how far stored changes are from the intervention's, over their norm."""
    errors = {}
    for name, update in intervention.updates.items():
        error, norm = (stored[name] - update).norm, update.norm
        errors[name] = error / norm if norm else error
    return errors


def pair(update: LowRankUpdate, rank: int, dtype: torch.dtype) -> Factors:
    """Return the factors of one change, filled up with zeros to a rank."""
    left, right = _balanced(update)
    spare = rank - update.rank
    b = torch.from_numpy(np.pad(left, ((0, 0), (0, spare)))).to(dtype)
    a = torch.from_numpy(np.pad(right, ((0, spare), (0, 0)))).to(dtype)
    return Factors(a.contiguous(), b.contiguous())


def _product_within(factors: Factors, most: float) -> bool:
    """Tell whether no entry of ``b @ a`` is larger than `most`."""
    a, b = factors.a.double(), factors.b.double()
    rows = b.norm(dim=1)
    # Cauchy and Schwarz; what they leave open is computed, a row at a time.
    open_rows = b[rows * a.norm(dim=0).max() > most]
    return all(bool((row @ a).abs().max() <= most) for row in open_rows)


def _balanced(update: LowRankUpdate) -> tuple[Array, Array]:
    """Factors whose columns and rows are of one size, for the sake of narrow types.

    They are scaled by powers of two, which loses nothing.
    """
    # Squares of large float32 are beyond float32.
    left, right = (np.asarray(f, np.float64) for f in (update.left, update.right))
    sizes = np.linalg.norm(left, axis=0), np.linalg.norm(right, axis=1)
    nonzero = (sizes[0] > 0) & (sizes[1] > 0)
    ratio = np.where(nonzero, sizes[1], 1.0) / np.where(nonzero, sizes[0], 1.0)
    shift = np.rint(np.log2(ratio) / 2).astype(int)
    return np.ldexp(update.left, shift), np.ldexp(update.right, -shift[:, None])
