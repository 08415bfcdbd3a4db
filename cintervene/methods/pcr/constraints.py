# SPDX-License-Identifier: Apache-2.0
"""Places in spans where a layer's outputs are constrained, and by what."""

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
    """Which captured rows are constrained, each by one or several of k things.

    Attributes
    ----------
    sequences, positions : ndarray, shape (m,)
        Where each row comes from.
    rows, columns : ndarray, shape (pairs,)
        Row of each pair, and which of the things: a token, or a group of rows that
        show the same concept.
    """

    sequences: Ints
    positions: Ints
    rows: Ints
    columns: Ints

    @classmethod
    def grouped(
        cls, spans: Sequence[TargetSpan], most: int, groups: int = 1
    ) -> ConstraintIndex:
        """Take rows of spans that all show one concept.

        Parameters
        ----------
        spans : sequence of TargetSpan
        most : int
            Positions of each, spread evenly over all that count.
        groups : int
            Parts into which the positions of each utterance fall, one after the other;
            each part is a group of its own.
        """
        chosen = [_spread(one.positions, most) for one in spans]
        parts = [np.arange(len(own)) * groups // len(own) for own in chosen]
        return cls(
            sequences=np.repeat(np.arange(len(chosen)), [len(own) for own in chosen]),
            positions=np.concatenate([np.array(own) for own in chosen]),
            rows=np.arange(sum(map(len, chosen))),
            columns=np.unique(np.concatenate(parts), return_inverse=True)[1],
        )

    @property
    def width(self) -> int:
        """Number k of things."""
        return int(self.columns.max()) + 1

    def wanted(self, n_sequences: int) -> list[list[int]]:
        """Positions of each sequence, as `LayerStream` takes them."""
        found: list[list[int]] = [[] for _ in range(n_sequences)]
        for sequence, position in zip(self.sequences, self.positions, strict=True):
            found[sequence].append(int(position))
        return found

    def scatter(self, values: Floats, fill: float) -> Floats:
        """Spread one value a pair over a matrix (m, k)."""
        table = np.full((len(self.positions), self.width), fill)
        table[self.rows, self.columns] = values
        return table


@dataclass(frozen=True, eq=False)
class TokenConstraintIndex(ConstraintIndex):
    """Which token must not be said, or must not be lost, at which captured row.

    Attributes
    ----------
    tokens : ndarray, shape (k,)
        Token of each column.
    signs : ndarray, shape (k,)
        1 for a token that shall fall, -1 for one that shall rise.
    weights : ndarray, shape (pairs,)
        Share of the amount asked for that falls on the pair: how distinctive the token
        is; 1 for tokens that shall rise.
    """

    tokens: Ints
    signs: Floats
    weights: Floats

    @classmethod
    def of(
        cls, probes: Sequence[TargetSpan], keep: Sequence[TargetSpan] = ()
    ) -> TokenConstraintIndex:
        """Pair places with tokens.

        Parameters
        ----------
        probes : sequence of TargetSpan
            None of their tokens shall be said; where the word begins, none of the first
            tokens that could begin it.
        keep : sequence of TargetSpan
            Their tokens shall not become less likely. They are numbered on from the
            probes.
        """
        said = {
            (sequence, position, token, 1): weight
            for sequence, probe in enumerate(probes)
            for position, own in enumerate(_unwanted(probe), start=probe.start - 1)
            for token, weight in own.items()
        }
        said |= {
            (sequence, position, token, -1): 1.0
            for sequence, one in enumerate(keep, start=len(probes))
            for position, token in zip(one.positions, one.targets, strict=True)
        }
        table = np.array(list(said), dtype=np.int64).reshape(-1, 4)
        places, rows = np.unique(table[:, :2], axis=0, return_inverse=True)
        names, columns = np.unique(table[:, 2:], axis=0, return_inverse=True)
        return cls(
            sequences=places[:, 0],
            positions=places[:, 1],
            tokens=names[:, 0],
            signs=names[:, 1].astype(np.float64),
            rows=rows.reshape(-1),
            columns=columns.reshape(-1),
            weights=np.array(list(said.values())),
        )

    @property
    def falling(self) -> npt.NDArray[np.bool_]:
        """Which pairs shall fall, (pairs,)."""
        return self.signs[self.columns] > 0.0


def _spread(positions: range, most: int) -> list[int]:
    """At most so many positions, evenly."""
    count = min(most, len(positions))
    return [positions[index * len(positions) // count] for index in range(count)]


def _unwanted(probe: TargetSpan) -> list[dict[int, float]]:
    """Tokens with weights for each position of a probe."""
    own = [
        {token: weight}
        for token, weight in zip(probe.targets, probe.weights, strict=True)
    ]
    return [{**own[0], **probe.openings}, *own[1:]]
