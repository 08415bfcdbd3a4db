# SPDX-License-Identifier: Apache-2.0
"""Forbidden tokens as regions of a layer's outputs, and the change that leaves them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cintervene.errors import ArgumentError
from cintervene.models.capture import Captured
from cintervene.models.fisher import OutputMetric, TokenStatistics, spread
from cintervene.models.targets import Target
from cintervene.models.unembedding import Unembedding, norm_scale
from cintervene.models.utterances import Utterance
from cintervene.preserve import Preserve
from cintervene.solution import Solution
from cintervene.solve import pcr

__all__ = [
    "CONCEPTS",
    "Balls",
    "Concepts",
    "HalfSpaces",
    "Pairs",
    "Region",
    "check_concepts",
    "logit_scale",
    "token_directions",
]

Concepts = Literal["contrast", "unembedding", "activation"]
CONCEPTS: tuple[str, ...] = get_args(Concepts)
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def check_concepts(concepts: object) -> None:
    """Raise ArgumentError unless `concepts` names a kind of concept."""
    if concepts not in CONCEPTS:
        valid = ", ".join(repr(name) for name in CONCEPTS)
        raise ArgumentError(f"concepts: got {concepts!r}; expected one of {valid}")


@dataclass(frozen=True, eq=False)
class Pairs:
    """Which token must not be said, or must not be lost, at which captured row.

    Attributes
    ----------
    sequences, positions : ndarray, shape (m,)
        Where each row comes from.
    tokens : ndarray, shape (k,)
        Token of each column.
    signs : ndarray, shape (k,)
        1 for a token that shall fall, -1 for one that shall rise.
    rows, columns : ndarray, shape (pairs,)
        Row and column of each pair.
    weights : ndarray, shape (pairs,)
        Share of the amount asked for that falls on the pair: how distinctive the token
        is; 1 for tokens that shall rise.
    """

    sequences: Ints
    positions: Ints
    tokens: Ints
    signs: Floats
    rows: Ints
    columns: Ints
    weights: Floats

    @classmethod
    def of(cls, probes: Sequence[Utterance], keep: Sequence[Utterance] = ()) -> Pairs:
        """Pair places with tokens.

        Parameters
        ----------
        probes : sequence of Utterance
            None of their tokens shall be said; where the word begins, none of the first
            tokens that could begin it.
        keep : sequence of Utterance
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

    def wanted(self, n_sequences: int) -> list[list[int]]:
        """Positions of each sequence, as `LayerStream` takes them."""
        found: list[list[int]] = [[] for _ in range(n_sequences)]
        for sequence, position in zip(self.sequences, self.positions, strict=True):
            found[sequence].append(int(position))
        return found

    def scatter(self, values: Floats, fill: float) -> Floats:
        """Spread one value a pair over a matrix (m, k)."""
        table = np.full((len(self.positions), len(self.tokens)), fill)
        table[self.rows, self.columns] = values
        return table


def _unwanted(probe: Utterance) -> list[dict[int, float]]:
    """Tokens with weights for each position of a probe."""
    own = [
        {token: weight}
        for token, weight in zip(probe.targets, probe.weights, strict=True)
    ]
    return [{**own[0], **probe.openings}, *own[1:]]


class Region(Protocol):
    """Constraints on the outputs of one layer."""

    def solve(
        self, preserve: Preserve, amount: Floats, slack: float, method: str
    ) -> Solution:
        """Find the least change of the layer, in the metric's coordinates."""

    def value(self, displacements: Floats) -> Floats:
        """What shifts of the outputs amount to, one number a pair.

        The shifts (m, d_out) are in the metric's coordinates, the numbers in the units
        of the amount asked for.
        """


class HalfSpaces:
    r"""Each token's logit, as far as this layer decides it, shall fall by an amount.

    Row j, token t: ``u_t . (o_j + delta h_j) <= u_t . o_j - amount s_j`` with u_t the
    direction of the layer's output that raises the token's logit and s_j what the norms
    behind the layer divide row j by. A token that shall rise has the opposite
    direction.

    Parameters
    ----------
    pairs : Pairs
    rows : Captured
        The layer's inputs and outputs at the rows of `pairs`.
    target : Target
    state : Tensor, shape (m, hidden)
        What the final norm reads at those rows.
    unembedding : Unembedding
    statistics : TokenStatistics
        Benign next-token distributions.
    contrast : bool
        Subtract from each direction the mean one of what the model says on benign text.
    metric : OutputMetric
    """

    def __init__(
        self,
        pairs: Pairs,
        rows: Captured,
        target: Target,
        state: Tensor,
        unembedding: Unembedding,
        statistics: TokenStatistics,
        contrast: bool,
        metric: OutputMetric,
    ) -> None:
        self._pairs, self._rows, self._metric = pairs, rows, metric
        directions = token_directions(
            pairs.tokens.tolist(), target, unembedding, statistics if contrast else None
        )
        self._directions = metric.directions(directions * pairs.signs[:, None])
        self._scale = logit_scale(target, unembedding, state, rows.outputs)

    def solve(
        self, preserve: Preserve, amount: Floats, slack: float, method: str
    ) -> Solution:
        """Find the least change; `amount` in nats.

        Tokens that have moved by more than was asked for are left alone.
        """
        outputs = self._metric.points(as_floats(self._rows.outputs))
        own = self._along(outputs)
        drop = np.where(amount > 0.0, amount * self._scale[self._pairs.rows], -np.inf)
        return pcr(
            self._rows.inputs,
            outputs,
            None,
            0.0,
            preserve=preserve,
            slack=slack,
            halfspaces=(self._directions, self._pairs.scatter(own - drop, np.inf)),
            method=method,
        )

    def value(self, displacements: Floats) -> Floats:
        """Nats by which each pair's logit moves the way asked for, to first order."""
        nats: Floats = -self._along(displacements) / self._scale[self._pairs.rows]
        return nats

    def _along(self, points: Floats) -> Floats:
        """Products of the pairs' rows with the pairs' directions."""
        products: Floats = np.einsum(
            "pd,pd->p", points[self._pairs.rows], self._directions[self._pairs.columns]
        )
        return products


def token_directions(
    tokens: Sequence[int],
    target: Target,
    unembedding: Unembedding,
    statistics: TokenStatistics | None,
) -> Floats:
    """Directions (tokens, d_out) of a target's output that raise the tokens' logits.

    Given statistics, the mean one of what is said on benign text is subtracted.
    """
    directions = as_floats(unembedding.directions(tokens, target))
    if statistics is not None:
        directions -= as_floats(statistics.mean_direction(unembedding, target))
    return directions


def logit_scale(
    target: Target, unembedding: Unembedding, state: Tensor, outputs: Tensor
) -> Floats:
    """What the norms behind a target divide rows by, (m,).

    Parameters
    ----------
    state : Tensor, shape (m, hidden)
        What the final norm reads.
    outputs : Tensor, shape (m, d_out)
        Of the target.
    """
    scale = spread(state, unembedding.centred)
    if target.after is not None:
        centred = norm_scale(target.after, target.d_out).centred
        scale = scale * spread(outputs, centred)
    return as_floats(scale)


class Balls:
    r"""Outputs keep a distance from the mean output of those about to say the token.

    ``||o_j + delta h_j - c_t|| >= amount d_t`` with c_t the mean over the rows of token
    t and d_t their root mean squared distance from it (the paper's reading).
    """

    def __init__(self, pairs: Pairs, rows: Captured, metric: OutputMetric) -> None:
        self._pairs, self._rows = pairs, rows
        self._outputs = metric.points(as_floats(rows.outputs))
        members = pairs.scatter(np.ones(len(pairs.rows)), 0.0)
        members /= members.sum(axis=0)
        self._centres = members.T @ self._outputs
        squares = np.square(self._distances(self._outputs))
        typical = np.bincount(
            pairs.columns, squares * members[pairs.rows, pairs.columns]
        )
        # A token seen once sits on its own mean: take how far the outputs lie apart.
        apart = self._outputs - self._outputs.mean(axis=0)
        overall = np.square(apart).sum(axis=1).mean()
        self._typical = np.sqrt(np.where(typical > 0.0, typical, overall))

    def solve(
        self, preserve: Preserve, amount: Floats, slack: float, method: str
    ) -> Solution:
        """Find the least change; `amount` is the radius in typical distances."""
        radius = np.maximum(amount, 0.0) * self._typical[self._pairs.columns]
        return pcr(
            self._rows.inputs,
            self._outputs,
            self._centres,
            self._pairs.scatter(radius, 0.0),
            preserve=preserve,
            slack=slack,
            method=method,
        )

    def value(self, displacements: Floats) -> Floats:
        """Distance from each pair's point, in typical distances."""
        distances = self._distances(self._outputs + displacements)
        relative: Floats = distances / self._typical[self._pairs.columns]
        return relative

    def _distances(self, outputs: Floats) -> Floats:
        apart = outputs[self._pairs.rows] - self._centres[self._pairs.columns]
        lengths: Floats = np.linalg.norm(apart, axis=1)
        return lengths


def as_floats(x: Tensor) -> Floats:
    """A tensor as a float64 array."""
    return x.detach().to(device="cpu", dtype=torch.float64).numpy()
