# SPDX-License-Identifier: Apache-2.0
"""The change of one weight, bound to the bits it was made for.

A weight that files hold in one type and a model in another has other bits there. An
edit knows it in both, and in each of them what comes out; see `Form`.
"""

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
    dtype_name,
    flip,
    flipped_bits,
    is_finite,
    sha256,
)
from cintervene.solvers.update import LowRankUpdate


@dataclass(frozen=True, eq=False)
class Form:
    """A weight in one type, before and after the change.

    Attributes
    ----------
    dtype : torch.dtype
    base_sha256 : str
        Of the base's bytes.
    result_sha256 : str or None
        Of the changed weight's bytes, where it is known.
    flips : array of uint8, or None
        The compressed difference of the bits, where it was recorded.
    """

    dtype: torch.dtype
    base_sha256: str
    result_sha256: str | None = None
    flips: Bytes | None = None

    @classmethod
    def of(
        cls, before: Tensor, update: LowRankUpdate, transposed: bool, reversible: bool
    ) -> Form:
        """The form of a weight that `update` is added to; the weight stays.

        Where the result is out of the type's range, it is not known.
        """
        after = before.clone()
        add_update(after, update, transposed)
        base = sha256(before)
        if not is_finite(after):
            return cls(before.dtype, base)
        flips = flipped_bits(before, after) if reversible else None
        return cls(before.dtype, base, sha256(after), flips)

    def read(self, weight: Tensor) -> Tensor | None:
        """Return a weight in this form's type, if it loses nothing by that."""
        return as_dtype(weight, self.dtype)


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
    base_norm : float
        Frobenius norm of the base.
    forms : tuple of Form
        The base as the model held it, first; then as its files do, if that differs.
    """

    update: LowRankUpdate
    layer: int
    transposed: bool
    base_norm: float
    forms: tuple[Form, ...]

    @property
    def dtype(self) -> torch.dtype:
        """Type in which the model held the base."""
        return self.forms[0].dtype

    @property
    def base_sha256(self) -> str:
        """Of the bytes of the base as the model held it."""
        return self.forms[0].base_sha256

    @property
    def result_sha256(self) -> str | None:
        """Of the bytes of the changed weight in that type, where it is known."""
        return self.forms[0].result_sha256

    @property
    def flips(self) -> Bytes | None:
        """The compressed difference of the bits there, where it was recorded."""
        return self.forms[0].flips

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
        name: str,
        weight: Tensor,
        update: LowRankUpdate,
        layer: int,
        transposed: bool,
        reversible: bool,
        stored: Tensor | None = None,
    ) -> Edit:
        """Make the edit of a weight as it is now, which is not changed.

        Factors are kept in the type in which they are added: float64 only for float64.

        Parameters
        ----------
        name : str
            For messages.
        weight : Tensor
        update : LowRankUpdate
        layer : int
        transposed, reversible : bool
        stored : Tensor, optional
            The same weight as files hold it in another type, if that is known.

        Raises
        ------
        InterventionError
            The weight is not finite, or the factors are out of range.
        """
        before = weight.detach()
        check_finite(name, before)
        if before.dtype != torch.float64:
            update = _narrowed(name, update)
        others = _elsewhere(before, stored) if reversible else ()
        return cls(
            update,
            layer,
            transposed,
            base_norm=float(torch.linalg.vector_norm(before, dtype=torch.float64)),
            forms=tuple(
                Form.of(one, update, transposed, reversible)
                for one in (before, *others)
            ),
        )

    def with_update(self, update: LowRankUpdate) -> Edit:
        """Return another change of the same base; its result is not known."""
        forms = tuple(Form(form.dtype, form.base_sha256) for form in self.forms)
        return replace(self, update=update, forms=forms)

    def rebased(
        self, name: str, weight: Tensor, reversible: bool, stored: Tensor | None
    ) -> Edit:
        """Return the same change of another base."""
        return Edit.of(
            name, weight, self.update, self.layer, self.transposed, reversible, stored
        )

    def knows(self, weight: Tensor) -> bool:
        """Tell whether a tensor is the base, or the base with the change."""
        return any(
            cast is not None and sha256(cast) in (form.base_sha256, form.result_sha256)
            for form in self.forms
            if (cast := form.read(weight)) is not None
        )

    def same_base(self, other: Edit) -> bool:
        """Tell whether two edits are of one weight, perhaps loaded in other types."""
        bases = {(form.dtype, form.base_sha256) for form in self.forms}
        return any((form.dtype, form.base_sha256) in bases for form in other.forms)

    def check_base(self, name: str, weight: Tensor) -> Form:
        """Return the form of a weight that the edit was made for.

        Raises
        ------
        InterventionError
            It is not finite, carries the edit already, or is another one.
        """
        check_finite(name, weight)
        form = self.base_form(weight)
        if form is not None:
            return form
        if self.knows(weight):
            raise InterventionError(
                f"{name} carries this intervention already; revert it first"
            )
        raise InterventionError(
            f"{name} is not the weight this intervention was made for (sha256 "
            f"{sha256(weight)[:12]} of {dtype_name(weight.dtype)}, expected "
            f"{self.base_sha256[:12]} of {dtype_name(self.dtype)}); load the base "
            "model, or rebase the intervention on purpose"
        )

    def base_form(self, weight: Tensor) -> Form | None:
        """Return the form of which a tensor is the base, if it is."""
        for form in self._likeliest(weight.dtype):
            cast = form.read(weight)
            if cast is not None and sha256(cast) == form.base_sha256:
                return form
        return None

    def changed(self, name: str, weight: Tensor, form: Form | None) -> Tensor:
        """Return what `added` does.

        Raises
        ------
        InterventionError
            The result is out of range.
        """
        result = self.added(weight, form)
        if not is_finite(result):
            raise InterventionError(
                f"{name}: with the change a value is out of the range of "
                f"{dtype_name(weight.dtype)}; scale the intervention down or load the "
                "model in a wider type"
            )
        return result

    def added(self, weight: Tensor, form: Form | None) -> Tensor:
        """Return a weight with the change, in a tensor of its own.

        It is rounded to the weight's type, or to that of `form` where that is narrower:
        so a checkpoint that was copied into a wider type can be taken back as well.
        """
        dtype = weight.dtype
        if form is not None and torch.promote_types(form.dtype, dtype) == dtype:
            dtype = form.dtype
        result = weight.detach().to(dtype, copy=True)
        add_update(result, self.update, self.transposed)
        return result.to(weight.dtype)

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
        for form in self._likeliest(weight.dtype):
            cast = form.read(weight)
            if cast is not None and sha256(cast) == form.result_sha256:
                return _unflipped(name, cast, form).to(weight.dtype)
        raise InterventionError(
            f"{name} does not carry this intervention, there is nothing to revert"
        )

    def _likeliest(self, dtype: torch.dtype) -> list[Form]:
        """The forms, those of a type first."""
        return sorted(self.forms, key=lambda form: form.dtype != dtype)


def check_finite(name: str, weight: Tensor) -> None:
    """Refuse a weight that is broken already.

    Raises
    ------
    InterventionError
        It holds Inf or NaN.
    """
    if not is_finite(weight):
        raise InterventionError(
            f"{name} holds Inf or NaN before any change; get the model again, or load "
            "it in the type that it is stored in"
        )


def _narrowed(name: str, update: LowRankUpdate) -> LowRankUpdate:
    with np.errstate(over="ignore"):
        left = update.left.astype(np.float32)
        right = update.right.astype(np.float32)
    if not (np.isfinite(left).all() and np.isfinite(right).all()):
        raise InterventionError(
            f"{name}: a factor of the change is out of the range of float32, the type "
            "that it is kept in; scale it"
        )
    return LowRankUpdate(left, right)


def _elsewhere(weight: Tensor, stored: Tensor | None) -> list[Tensor]:
    """The weight in the types in which files may hold it, its own left out.

    Where there are no files to look into, those are the narrowest that lose nothing.
    """
    if stored is not None:
        return [stored.to(weight.device)]
    if weight.dtype not in (torch.float32, torch.float64):
        return []
    halves = [as_dtype(weight, dtype) for dtype in (torch.bfloat16, torch.float16)]
    found = [half for half in halves if half is not None]
    if not found and weight.dtype == torch.float64:
        single = as_dtype(weight, torch.float32)
        found = [] if single is None else [single]
    return found


def _unflipped(name: str, weight: Tensor, form: Form) -> Tensor:
    if form.flips is None:
        raise InterventionError(f"{name}: the difference of the bits is not recorded")
    try:
        base = flip(weight, form.flips)
    except ValueError as error:
        raise InterventionError(f"{name}: damaged record ({error})") from error
    if sha256(base) != form.base_sha256:
        raise InterventionError(f"{name}: the recorded bits do not give the base")
    return base


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
