# SPDX-License-Identifier: Apache-2.0
"""Benign inputs of a layer as they are held: chunks, rows, or their second moments."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from cintervene import _core
from cintervene.errors import ArgumentError
from cintervene.solvers import packed
from cintervene.utils.arrays import Floats, shape_of

__all__ = ["ROWS", "Chunks", "Rows", "Statistics", "Sum", "matrix_shape", "widened"]

# Rows of a matrix that are measured at a time, and of inputs that are weighted. Sums
# over inputs go on in steps of so many whatever the rows of a chunk.
ROWS = 256


class Statistics(Protocol):
    """What a norm is made of: inputs, or the sum of their outer products."""

    @property
    def d_in(self) -> int:
        """Dimension of the inputs."""

    @property
    def mean_square(self) -> float:
        """Of one value of an input."""

    def system(self, ridge: float) -> Floats:
        """The matrix that is to be factored."""

    def solve(self, factor: Floats, ridge: float, inputs: Floats) -> Floats:
        """``inputs P^-1``, written over `inputs`."""

    def gram(self, ridge: float, rows: Floats) -> Floats:
        """``rows P rows'``."""


@dataclass(frozen=True, eq=False)
class Chunks:
    """Inputs as they were added.

    Attributes
    ----------
    d_in : int
    chunks : tuple of array_like
    weights : tuple of float
        Of each chunk's inputs.
    """

    d_in: int
    chunks: tuple[Any, ...] = ()
    weights: tuple[float, ...] = ()

    @property
    def count(self) -> float:
        """How many there are, by their weights."""
        pairs = zip(self.chunks, self.weights, strict=True)
        return sum(weight * _rows_of(chunk) for chunk, weight in pairs)

    def with_chunk(self, chunk: Any, own: bool) -> "Chunks | Sum":
        """These and a copy of some more; `own` as with `Sum`."""
        del own
        return self._with(Chunks(self.d_in, (_own(chunk),), (1,)))

    def merged(self, other: "Chunks | Sum", weight: float, own: bool) -> "Chunks | Sum":
        """These and others, each of which counts `weight` times."""
        del own
        if isinstance(other, Sum):
            # A sum that nobody else has seen.
            return self.summed().merged(other, weight, True)
        weights = tuple(weight * one for one in other.weights)
        return self._with(Chunks(self.d_in, other.chunks, weights))

    def _with(self, other: "Chunks") -> "Chunks | Sum":
        chunks = (*self.chunks, *other.chunks)
        both = Chunks(self.d_in, chunks, (*self.weights, *other.weights))
        return both.summed() if both.many else both

    def summed(self) -> "Sum":
        """Their sum."""
        total = self.added_to(packed.zeros(self.d_in))
        return Sum(self.d_in, total, self.count)

    def added_to(self, total: Floats, weight: float = 1.0) -> Floats:
        """Add them to a sum, packed, and return it."""
        for chunk, own in zip(self.chunks, self.weights, strict=True):
            if weight * own == 1:
                _core.moment_add(chunk, total)
                continue
            # As wide as they are, all of them in float64 would be large.
            for start in range(0, _rows_of(chunk), ROWS):
                part = chunk[start : start + ROWS]
                _core.moment_add(_weighted(part, weight * own), total)
        return total

    @property
    def many(self) -> bool:
        """Whether their sum takes less memory and time than they do."""
        return 2 * sum(map(_rows_of, self.chunks)) > self.d_in

    def statistics(self) -> "Rows | Sum":
        """What a norm is made of, in less memory and time."""
        if self.many:
            return self.summed()
        parts = [np.empty((0, self.d_in))]
        for chunk, weight in zip(self.chunks, self.weights, strict=True):
            parts.append(widened(_weighted(chunk, weight), "benign_inputs"))
        return Rows(np.concatenate(parts), self.count)


@dataclass(frozen=True, eq=False)
class Sum:
    """Sum of the outer products of inputs, packed, and how many that were."""

    d_in: int
    sum: Floats
    count: float

    def with_chunk(self, chunk: Any, own: bool) -> "Sum":
        """What comes of it and some more; in the same memory where it is `own`."""
        total = _core.moment_add(chunk, self._total(own))
        return Sum(self.d_in, total, self.count + _rows_of(chunk))

    def merged(self, other: "Chunks | Sum", weight: float, own: bool) -> "Sum":
        """What comes of it and others, each of which counts `weight` times."""
        total = other.added_to(self._total(own), weight)
        return Sum(self.d_in, total, self.count + weight * other.count)

    def _total(self, own: bool) -> Floats:
        """What is added to: the sum itself, where it may be altered."""
        return self.sum if own else self.sum.copy()

    def added_to(self, total: Floats, weight: float) -> Floats:
        """Add it to another sum, packed, and return that."""
        pairs = packed.block_rows(total, self.d_in), self._block_rows()
        for (_, _, rows), (_, _, own) in zip(*pairs, strict=True):
            rows += weight * own
        return total

    def summed(self) -> "Sum":
        """Itself."""
        return self

    def statistics(self) -> "Sum":
        """Itself."""
        return self

    def _block_rows(self) -> Iterator[tuple[int, int, Floats]]:
        return packed.block_rows(self.sum, self.d_in)

    @property
    def mean_square(self) -> float:
        """See `Statistics`."""
        return packed.trace(self.sum, self.d_in) / max(self.count * self.d_in, 1)

    def system(self, ridge: float, out: Floats | None = None) -> Floats:
        """Return P, packed, written to `out` if that is given."""
        system = np.divide(self.sum, max(self.count, 1), out=out)
        packed.add_to_diagonal(system, self.d_in, ridge)
        return system

    def solve(self, factor: Floats, ridge: float, inputs: Floats) -> Floats:
        """``inputs P^-1``, written over `inputs`."""
        del ridge
        return _core.spd_solve(factor, inputs)

    def gram(self, ridge: float, rows: Floats) -> Floats:
        """``rows P rows'``."""
        half = packed.times_symmetric(rows, self.sum)
        moved = _core.product_nt(half, rows) / max(self.count, 1)
        return ridge * _core.product_nt(rows, rows) + moved


@dataclass(frozen=True, eq=False)
class Rows:
    """Inputs (n, d_in), each times the root of its weight; fewer than dimensions."""

    rows: Floats
    count: float

    @property
    def d_in(self) -> int:
        """See `Statistics`."""
        return int(self.rows.shape[1])

    @property
    def mean_square(self) -> float:
        """See `Statistics`."""
        return float(np.sum(np.square(self.rows))) / max(self.count * self.d_in, 1)

    def system(self, ridge: float) -> Floats:
        """``XX' + N ridge I``."""
        matrix = _core.product_nt(self.rows, self.rows)
        matrix[np.diag_indices(len(matrix))] += self.count * ridge
        return matrix

    def solve(self, factor: Floats, ridge: float, inputs: Floats) -> Floats:
        """``(H - H X' (XX' + N ridge I)^-1 X) / ridge``."""
        weights = _core.product_nt(inputs, self.rows)
        _core.spd_solve(factor, weights)
        inputs -= _core.product_nn(weights, self.rows)
        inputs /= ridge
        return inputs

    def gram(self, ridge: float, rows: Floats) -> Floats:
        """``rows P rows'``."""
        responses = _core.product_nt(rows, self.rows)
        moved = _core.product_nt(responses, responses) / max(self.count, 1)
        return ridge * _core.product_nt(rows, rows) + moved


def _weighted(chunk: Any, weight: float) -> Any:
    """Inputs of which each counts so many times."""
    return chunk if weight == 1 else _core.as_float64(chunk) * np.sqrt(weight)


def _own(chunk: Any) -> Any:
    """A copy in the type that it has, of torch and NumPy; of others as float64."""
    if hasattr(chunk, "detach"):
        return chunk.detach().clone()
    return chunk.copy() if isinstance(chunk, np.ndarray) else widened(chunk, "chunk")


def widened(x: Any, name: str) -> Floats:
    """Float64 copy of a finite array with two axes."""
    wide, _ = _core.widen(x, name)
    matrix_shape(wide, name)
    return wide


def matrix_shape(x: Any, name: str) -> tuple[int, int]:
    """Rows and columns of a matrix.

    Raises
    ------
    ArgumentError
        It has not two axes.
    """
    shape = shape_of(x, name)
    if len(shape) != 2:
        raise ArgumentError(
            f"{name}: got shape {shape}; expected two axes, one row a sample"
        )
    return int(shape[0]), int(shape[1])


def _rows_of(inputs: Any) -> int:
    """How many rows there are; what only exports its memory has no length."""
    return matrix_shape(inputs, "inputs")[0]
