# SPDX-License-Identifier: Apache-2.0
"""Which rows of a layer's outputs are constrained, and by what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cintervene.prompts.target_spans import TargetSpan
from cintervene.utils.arrays import Floats

__all__ = ["ConstraintIndex", "TokenConstraintIndex"]

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ConstraintIndex:
    """A list of constraints: which row, and which of k tokens or groups.

    Attributes
    ----------
    sequences, positions : ndarray, shape (m,)
        Where each constrained row comes from.
    rows, columns : ndarray, shape (constraints,)
        Row of each constraint, and its column: a token, or a group of rows that show
        the same concept.
    """

    sequences: Ints
    positions: Ints
    rows: Ints
    columns: Ints

    @classmethod
    def grouped(
        cls, spans: Sequence[TargetSpan], most: int, groups: int = 1
    ) -> ConstraintIndex:
        """Constrain rows of spans that all show one concept.

        Parameters
        ----------
        spans : sequence of TargetSpan
        most : int
            Largest number of positions of a span, evenly spaced over all that count.
        groups : int
            Parts into which the positions of each span are divided, in order; each part
            is a group of its own.
        """
        chosen = [_evenly_spaced(span.positions, most) for span in spans]
        sizes = [len(positions) for positions in chosen]
        parts = [np.arange(size) * groups // size for size in sizes]
        return cls(
            sequences=np.repeat(np.arange(len(chosen)), sizes),
            positions=np.concatenate([np.array(positions) for positions in chosen]),
            rows=np.arange(sum(sizes)),
            columns=np.unique(np.concatenate(parts), return_inverse=True)[1],
        )

    @property
    def width(self) -> int:
        """Number k of columns."""
        return int(self.columns.max()) + 1

    def wanted(self, n_sequences: int) -> list[list[int]]:
        """Positions of each sequence, as `LayerStream` takes them."""
        wanted: list[list[int]] = [[] for _ in range(n_sequences)]
        for sequence, position in zip(self.sequences, self.positions, strict=True):
            wanted[sequence].append(int(position))
        return wanted

    def scatter(self, values: Floats, fill: float) -> Floats:
        """Write one value a constraint into a matrix (m, k) that holds `fill` else."""
        table = np.full((len(self.positions), self.width), fill)
        table[self.rows, self.columns] = values
        return table


@dataclass(frozen=True, eq=False)
class TokenConstraintIndex(ConstraintIndex):
    """Which token shall fall or rise at which row.

    Attributes
    ----------
    tokens : ndarray, shape (k,)
        Token of each column.
    signs : ndarray, shape (k,)
        1 for a token that shall fall, -1 for one that shall rise.
    weights : ndarray, shape (constraints,)
        Share of the requested amount: how distinctive the token is; 1 for tokens that
        shall rise.
    """

    tokens: Ints
    signs: Floats
    weights: Floats

    @classmethod
    def of(
        cls, forget: Sequence[TargetSpan], near_negatives: Sequence[TargetSpan] = ()
    ) -> TokenConstraintIndex:
        """Constrain the tokens of spans.

        Parameters
        ----------
        forget : sequence of TargetSpan
            All of their tokens shall fall; where the word begins, all first tokens that
            could begin it.
        near_negatives : sequence of TargetSpan
            Their tokens shall not become less likely. Their sequences are numbered on
            from those of `forget`.
        """
        weights = {
            (sequence, position, token, 1): weight
            for sequence, span in enumerate(forget)
            for position, tokens in enumerate(_falling(span), start=span.start - 1)
            for token, weight in tokens.items()
        }
        weights |= {
            (sequence, position, token, -1): 1.0
            for sequence, span in enumerate(near_negatives, start=len(forget))
            for position, token in zip(span.positions, span.targets, strict=True)
        }
        table = np.array(list(weights), dtype=np.int64).reshape(-1, 4)
        places, rows = np.unique(table[:, :2], axis=0, return_inverse=True)
        tokens, columns = np.unique(table[:, 2:], axis=0, return_inverse=True)
        return cls(
            sequences=places[:, 0],
            positions=places[:, 1],
            tokens=tokens[:, 0],
            signs=tokens[:, 1].astype(np.float64),
            rows=rows.reshape(-1),
            columns=columns.reshape(-1),
            weights=np.array(list(weights.values())),
        )

    @property
    def falling(self) -> npt.NDArray[np.bool_]:
        """Which constraints are on tokens that shall fall, shape (constraints,)."""
        return self.signs[self.columns] > 0.0


def _evenly_spaced(positions: range, most: int) -> list[int]:
    """At most so many positions."""
    count = min(most, len(positions))
    return [positions[index * len(positions) // count] for index in range(count)]


def _falling(span: TargetSpan) -> list[dict[int, float]]:
    """Tokens that shall fall, with weights, for each position of a span."""
    tokens = [
        {token: weight}
        for token, weight in zip(span.targets, span.weights, strict=True)
    ]
    return [{**tokens[0], **span.openings}, *tokens[1:]]
