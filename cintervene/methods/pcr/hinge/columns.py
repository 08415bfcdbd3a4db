# SPDX-License-Identifier: Apache-2.0
"""What neurons add where they are open: the least displacement that lowers their words.

docs/methods/pcr.md (11): each neuron's column is a PCR problem of its own, with the
neuron's activation as the one input and a half-space for each of its words' tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cintervene.methods.common.output_metric import (
    OutputMetric,
    TokenStatistics,
    spread,
    token_directions,
)
from cintervene.methods.pcr.hinge.groups import Group
from cintervene.methods.pcr.hinge.rows import HingeRows
from cintervene.models.targets import Target
from cintervene.models.unembedding import Unembedding
from cintervene.solvers.pcr import pcr
from cintervene.solvers.solution import Solution
from cintervene.utils.arrays import Floats
from cintervene.utils.ranks import deal

__all__ = ["Columns", "solve_columns"]

# Nats by which a benign word's token may fall with a forbidden one's nat; and more than
# what fall makes it too like that to be told apart.
KEPT, ALIKE = 0.1, 0.7
# Power of how distinctive first tokens are: where only their word begins, they may fall
# more than they should everywhere.
BEGIN_POWER = 0.4
# How often tokens that have come over that limit are added to a problem.
ROUNDS = 6


@dataclass(frozen=True, eq=False)
class Columns:
    """Displacements for one nat.

    Attributes
    ----------
    displacements : ndarray, shape (neurons, hidden)
        Where its activation is 1, a neuron's displacement lowers the logits of its
        words' tokens by one nat, in proportion to how distinctive they are.
    costs : ndarray, shape (neurons,)
        Their squared lengths in the metric.
    certified : int
        How many of them are proved to be the least.
    """

    displacements: Floats
    costs: Floats
    certified: int


def solve_columns(
    rows: HingeRows,
    groups: Sequence[Group],
    down: Target,
    unembedding: Unembedding,
    statistics: TokenStatistics,
    metric: OutputMetric,
) -> Columns:
    """Solve the problem of each neuron.

    Parameters
    ----------
    rows : HingeRows
    groups : sequence of Group
        Of each neuron.
    down : Target
    unembedding : Unembedding
    statistics : TokenStatistics
        Of benign text, whose mean direction is left out of the tokens'.
    metric : OutputMetric
    """
    problem = _Problem(rows, down, unembedding, statistics, metric)
    found = deal("columns", groups, lambda group: problem.solve(_falling(rows, group)))
    displacements, costs, certified = zip(*found, strict=True)
    return Columns(np.stack(displacements), np.array(costs), sum(certified))


def _falling(rows: HingeRows, group: Group) -> dict[int, float]:
    """The tokens that a group's words begin or go on with, and how distinctive."""
    weights: dict[int, float] = {}
    for row in np.flatnonzero(group.of(rows)):
        for token, weight in rows.tokens[row].items():
            weights[token] = max(weight, weights.get(token, 0.0))
    power = BEGIN_POWER if group.begins else 1.0
    return {token: weight**power for token, weight in weights.items()}


class _Problem:
    """What the problems of all neurons have in common."""

    def __init__(
        self,
        rows: HingeRows,
        down: Target,
        unembedding: Unembedding,
        statistics: TokenStatistics,
        metric: OutputMetric,
    ) -> None:
        self._down, self._unembedding = down, unembedding
        self._statistics, self._metric = statistics, metric
        self._scale = float(spread(rows.said_states, unembedding.centred).mean())
        self._near = sorted(rows.near_tokens)
        self._near_directions = self._directions(self._near)

    def solve(self, weights: dict[int, float]) -> tuple[Floats, float, bool]:
        """Lower some tokens, and others that are like them by a little at most."""
        directions = self._directions(list(weights))
        offsets = -self._scale * np.array(list(weights.values()))
        solution = self._least(directions, offsets)
        falls = self._falls(solution)
        spared = (falls < ALIKE) & ~np.isin(self._near, list(weights))
        # Of the many tokens only some come near their limit; these are asked for.
        asked = np.zeros_like(spared)
        for _ in range(ROUNDS):
            new = spared & ~asked & (falls > KEPT)
            if not new.any():
                break
            asked |= new
            most = np.full(int(asked.sum()), KEPT * self._scale)
            solution = self._least(
                np.concatenate([directions, -self._near_directions[asked]]),
                np.concatenate([offsets, most]),
            )
            falls = self._falls(solution)
        update = self._metric.restore(solution.update)
        displacement: Floats = (update.left @ update.right)[:, 0]
        return displacement, solution.cost, bool(solution.certified)

    def _directions(self, tokens: list[int]) -> Floats:
        plain = token_directions(
            tokens, self._down, self._unembedding, self._statistics
        )
        return self._metric.directions(plain)

    def _least(self, directions: Floats, offsets: Floats) -> Solution:
        return pcr(
            [[1.0]],
            np.zeros((1, self._down.d_out)),
            None,
            0.0,
            halfspaces=(directions, offsets[None]),
        )

    def _falls(self, solution: Solution) -> Floats:
        """Nats by which the tokens of benign words fall."""
        point = (solution.update.left @ solution.update.right)[:, 0]
        falls: Floats = self._near_directions @ point / -self._scale
        return falls
