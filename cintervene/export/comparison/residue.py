# SPDX-License-Identifier: Apache-2.0
"""The difference of two tensors, and how much of it rounding can be."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from cintervene.intervention.edit import Edit

# Beyond this side the rank is not computed, for the sake of time.
RANK_SIDE = 4096
# A rank above this share of the smaller side is not called low.
LOW = 0.5
# Rows are widened to float64 this many elements at a time.
CHUNK = 1 << 22
# Of the largest singular value: what sums in float32 leave.
SUMS = 1e-6
# Half of the distance between neighbouring numbers, over the power of two below them.
HALF_STEPS = {
    torch.bfloat16: 2.0**-8,
    torch.float16: 2.0**-11,
    torch.float32: 2.0**-24,
    torch.float64: 2.0**-53,
}


class Residue:
    """``after - before``, computed a few rows at a time.

    Attributes
    ----------
    norm, relative_norm : float
        Of the difference, and over that of `before`.
    rounding : float
        Expected Frobenius norm of the rounding of `after`; 0 for types that are not
        rounded to.
    """

    def __init__(self, before: Tensor, after: Tensor) -> None:
        self._before, self._after = before, after
        self._half_step = HALF_STEPS.get(after.dtype, 0.0)
        squares, base, variance = 0.0, 0.0, 0.0
        for a, b in self._chunks():
            squares += float((b - a).square().sum())
            base += float(a.square().sum())
            variance += float(self._variance(b).sum())
        self.norm = math.sqrt(squares)
        self.relative_norm = self.norm / math.sqrt(base) if base else math.inf
        self.rounding = math.sqrt(variance)

    def rank(self) -> int | None:
        """The number of singular values that rounding cannot explain, where it is low.

        Rounding errors are independent; the largest singular value of such a matrix is
        about the largest norm of its rows plus that of its columns.
        """
        d_out, d_in = self._after.shape
        side = min(d_out, d_in)
        if side > RANK_SIDE or not math.isfinite(self.norm):
            return None
        gram = torch.zeros((side, side), dtype=torch.float64)
        columns, row = torch.zeros(d_in, dtype=torch.float64), 0.0
        start = 0
        for a, b in self._chunks():
            change, variance = b - a, self._variance(b)
            columns += variance.sum(0)
            row = max(row, float(variance.sum(1).max()))
            if side == d_in:
                gram += change.T @ change
            else:
                gram[start : start + len(a)] = self._products(change)
            start += len(a)
        values = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
        noise = 1.1 * (math.sqrt(row) + math.sqrt(float(columns.max())))
        rank = int((values > noise + SUMS * float(values[-1])).sum())
        return rank if rank <= LOW * side else None

    def without(self, edits: Sequence[Edit]) -> float:
        """Norm of what is left when changes are taken away, over that of all."""
        squares, start = 0.0, 0
        for a, b in self._chunks():
            change = b - a
            for edit in edits:
                update = edit.update.T if edit.transposed else edit.update
                rows = torch.from_numpy(update.left[start : start + len(a)]).double()
                change -= rows @ torch.from_numpy(update.right).double()
            squares += float(change.square().sum())
            start += len(a)
        return math.sqrt(squares) / self.norm if self.norm else 0.0

    def tolerance(self, roundings: int) -> float:
        """What `without` may leave after so many changes that were rounded each."""
        if self.norm == 0:
            return 0.0
        return 1.5 * math.sqrt(roundings) * self.rounding / self.norm + 10 * SUMS

    def _products(self, change: Tensor) -> Tensor:
        """Rows of the difference times all of it, in its own turn by chunks."""
        return torch.cat([change @ (b - a).T for a, b in self._chunks()], dim=1)

    def _variance(self, value: Tensor) -> Tensor:
        """Of the rounding errors, uniform over a step; float64."""
        powers = torch.frexp(value).exponent - 1
        step = self._half_step * torch.exp2(powers.double())
        return torch.where(value == 0, 0.0, step.square() / 3)

    def _chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Pairs of rows as float64; a tensor of other than two axes is one column."""
        a, b = self._before, self._after
        if a.ndim != 2:
            a, b = a.reshape(-1, 1), b.reshape(-1, 1)
        count = max(1, CHUNK // max(1, a.shape[1]))
        for start in range(0, len(a), count):
            rows = slice(start, start + count)
            yield a[rows].double(), b[rows].double()
