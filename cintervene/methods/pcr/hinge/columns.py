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
from cintervene.methods.pcr.hinge.rows import HingeRows
from cintervene.models.targets import Target
from cintervene.models.unembedding import Unembedding
from cintervene.solvers.pcr import pcr
from cintervene.utils.arrays import Floats

__all__ = ["Columns", "solve_columns"]


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
    groups: Sequence[Sequence[int]],
    down: Target,
    unembedding: Unembedding,
    statistics: TokenStatistics,
    metric: OutputMetric,
) -> Columns:
    """Solve the problem of each neuron.

    Parameters
    ----------
    rows : HingeRows
    groups : sequence of sequence of int
        Words of each neuron.
    down : Target
    unembedding : Unembedding
    statistics : TokenStatistics
        Of benign text, whose mean direction is left out of the tokens'.
    metric : OutputMetric
    """
    scale = float(spread(rows.said_states, unembedding.centred).mean())
    found = [
        _solve(_falling(rows, group), down, unembedding, statistics, metric, scale)
        for group in groups
    ]
    displacements, costs, certified = zip(*found, strict=True)
    return Columns(np.stack(displacements), np.array(costs), sum(certified))


def _falling(rows: HingeRows, group: Sequence[int]) -> dict[int, float]:
    """The tokens of a group's words, and how distinctive each is at most."""
    weights: dict[int, float] = {}
    for row in np.flatnonzero(np.isin(rows.owners, group)):
        for token, weight in rows.tokens[row].items():
            weights[token] = max(weight, weights.get(token, 0.0))
    return weights


def _solve(
    weights: dict[int, float],
    down: Target,
    unembedding: Unembedding,
    statistics: TokenStatistics,
    metric: OutputMetric,
    scale: float,
) -> tuple[Floats, float, bool]:
    directions = token_directions(list(weights), down, unembedding, statistics)
    offsets = -scale * np.array([list(weights.values())])
    solution = pcr(
        [[1.0]],
        np.zeros((1, down.d_out)),
        None,
        0.0,
        halfspaces=(metric.directions(directions), offsets),
    )
    update = metric.restore(solution.update)
    displacement: Floats = (update.left @ update.right)[:, 0]
    return displacement, solution.cost, bool(solution.certified)
