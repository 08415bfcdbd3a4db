# SPDX-License-Identifier: Apache-2.0
"""The change of one weight, bound to the bits it was made for."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from cintervene.errors import InterventionError
from cintervene.models.weights import (
    Bytes,
    add_update,
    as_dtype,
    flip,
    flipped_bits,
    sha256,
)
from cintervene.solvers.update import LowRankUpdate


@dataclass(frozen=True, eq=False)
class Edit:
    """The change of one weight and the bits it was made for.

    Attributes
    ----------
    update : LowRankUpdate
        The change of the (d_out, d_in) matrix.
    layer : int
        Index of the decoder layer.
    transposed : bool
        Whether the weight is stored as (d_in, d_out).
    dtype : torch.dtype
        Storage type of the base.
    base_sha256 : str
        Of the base's bytes.
    base_norm : float
        Frobenius norm of the base.
    result_sha256 : str or None
        Of the changed weight's bytes, where it is known.
    flips : array of uint8, or None
        The compressed difference of the bits, where it was recorded.
    """

    update: LowRankUpdate
    layer: int
    transposed: bool
    dtype: torch.dtype
    base_sha256: str
    base_norm: float
    result_sha256: str | None = None
    flips: Bytes | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight as stored."""
        return self.update.shape[::-1] if self.transposed else self.update.shape

    @property
    def relative_norm(self) -> float:
        """Frobenius norm of the change over that of the base."""
        return self.update.norm / self.base_norm if self.base_norm else math.inf

    @classmethod
    def of(
        cls,
        weight: Tensor,
        update: LowRankUpdate,
        layer: int,
        transposed: bool,
        reversible: bool,
    ) -> Edit:
        """Make the edit of a weight as it is now, which is not changed.

        Factors are kept in the type in which they are added: float64 only for float64.
        """
        before = weight.detach()
        if before.dtype != torch.float64:
            update = LowRankUpdate(
                update.left.astype(np.float32), update.right.astype(np.float32)
            )
        after = before.clone()
        add_update(after, update, transposed)
        return cls(
            update,
            layer,
            transposed,
            weight.dtype,
            base_sha256=sha256(before),
            base_norm=float(torch.linalg.vector_norm(before, dtype=torch.float64)),
            result_sha256=sha256(after),
            flips=flipped_bits(before, after) if reversible else None,
        )

    def with_update(self, update: LowRankUpdate) -> Edit:
        """Return another change of the same base; its result is not known."""
        return replace(self, update=update, result_sha256=None, flips=None)

    def rebased(self, weight: Tensor, reversible: bool) -> Edit:
        """Return the same change of another base."""
        return Edit.of(weight, self.update, self.layer, self.transposed, reversible)

    def check_base(self, name: str, weight: Tensor) -> None:
        """Raise InterventionError if `weight` is not what the edit was made for."""
        cast = as_dtype(weight, self.dtype)
        digest = sha256(weight if cast is None else cast)
        if cast is not None and digest == self.base_sha256:
            return
        if cast is not None and digest == self.result_sha256:
            raise InterventionError(
                f"{name} carries this intervention already; revert it first"
            )
        raise InterventionError(
            f"{name} is not the weight this intervention was made for (sha256 "
            f"{digest[:12]}, expected {self.base_sha256[:12]}); load the base model, "
            "or rebase the intervention on purpose"
        )

    def recover(self, name: str, weight: Tensor) -> Tensor:
        """Return the base of a weight that carries the edit, by the recorded bits.

        Raises
        ------
        InterventionError
            The weight does not carry the edit, or the bits are not recorded.
        """
        if self.flips is None:
            raise InterventionError(
                f"{name}: this model was not changed by this intervention in this "
                "process and the difference of the bits is not recorded; load the base "
                "model"
            )
        cast = as_dtype(weight, self.dtype)
        if cast is None or sha256(cast) != self.result_sha256:
            raise InterventionError(
                f"{name} does not carry this intervention, there is nothing to revert"
            )
        try:
            base = flip(cast, self.flips)
        except ValueError as error:
            raise InterventionError(f"{name}: damaged record ({error})") from error
        if sha256(base) != self.base_sha256:
            raise InterventionError(f"{name}: the recorded bits do not give the base")
        return base.to(weight.dtype)


def digest_of(edits: Mapping[str, Edit]) -> str:
    """Return the sha256 of changes: names, orientation and factors."""
    state = hashlib.sha256()
    for name, edit in sorted(edits.items()):
        left, right = edit.update.left, edit.update.right
        head = (name, edit.transposed, left.shape, right.shape)
        state.update(repr((*head, left.dtype.str, right.dtype.str)).encode())
        state.update(left.tobytes())
        state.update(right.tobytes())
    return state.hexdigest()


def dtype_name(dtype: torch.dtype) -> str:
    """Return the name of a type without the module."""
    return str(dtype).removeprefix("torch.")
