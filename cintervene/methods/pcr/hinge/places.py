# SPDX-License-Identifier: Apache-2.0
"""Which neurons of an MLP are given up, and how the others stand in for them.

A neuron is given up whose loss the others can best make up for: of what all neurons do
on benign text, the least-squares fit without it is the closest (the rule of the optimal
brain surgeon, Hassibi and Stork 1993), where closeness is the divergence that what is
missed causes, docs/methods/pcr.md (15).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from cintervene import _core
from cintervene.methods.common.gated_mlp import BLOCK, GatedMLP
from cintervene.methods.pcr.hinge.costs import costs_alone
from cintervene.models.unembedding import Unembedding
from cintervene.models.weights import as_floats
from cintervene.solvers import packed
from cintervene.solvers.update import LowRankUpdate
from cintervene.utils.arrays import Floats

__all__ = ["GivenUp", "give_up"]

# Of the fit, relative to the mean squared activation.
RIDGE = 1e-3
# For each that is given up, how many are looked at closely: those of which the others
# miss least, as the lengths of their columns go.
CANDIDATES = 8


@dataclass(frozen=True, eq=False)
class GivenUp:
    """Neurons that are given up.

    Attributes
    ----------
    places : list of int
    made_up : LowRankUpdate
        The change of the down projection by which the others stand in for them.
    """

    places: list[int]
    made_up: LowRankUpdate


def give_up(
    mlp: GatedMLP, unembedding: Unembedding, inputs: Tensor, states: Tensor, count: int
) -> GivenUp:
    """Choose neurons one after the other, each for the least divergence.

    Parameters
    ----------
    mlp : GatedMLP
    unembedding : Unembedding
    inputs : Tensor, shape (n, hidden)
        What enters the MLP on benign text.
    states : Tensor, shape (n, hidden)
        What the final norm reads there.
    count : int
    """
    size = mlp.down.d_in
    system = _gram(mlp, inputs)
    ridge = RIDGE * packed.trace(system, size) / size
    packed.add_to_diagonal(system, size, ridge)
    inverse = _Inverse(_core.spd_factor(system), size)
    diagonal = inverse.diagonal()
    short = np.argsort(_squared_lengths(mlp) / diagonal, kind="stable")
    candidates = sorted(short[: CANDIDATES * count].tolist())
    missed = inverse.rows(candidates) / diagonal[candidates, None]
    costs = np.full(size, np.inf)
    costs[candidates] = costs_alone(
        mlp, unembedding, inputs, states, candidates, missed
    )
    places = _least_missed(inverse, diagonal, costs, count)
    rows = np.concatenate([inverse.rows([place]) for place in places])
    # Of the inverse's blocks: the system of those that are kept is never formed.
    shares = -np.linalg.solve(rows[:, places], rows)
    shares[:, places] = 0.0
    return GivenUp(places, LowRankUpdate(as_floats(mlp.columns(places)).T, shares))


def _squared_lengths(mlp: GatedMLP) -> Floats:
    """Squared lengths of the columns of all neurons."""
    size = mlp.down.d_in
    parts = [range(at, min(at + BLOCK, size)) for at in range(0, size, BLOCK)]
    return np.concatenate(
        [as_floats(mlp.columns(part).square().sum(dim=1)) for part in parts]
    )


class _Inverse:
    """The inverse of a matrix (size, size), of which there is a packed factor."""

    def __init__(self, factor: Floats, size: int) -> None:
        self._factor, self.size = factor, size

    def rows(self, which: Sequence[int]) -> Floats:
        """Some of its rows."""
        unit = np.zeros((len(which), self.size))
        unit[np.arange(len(which)), list(which)] = 1.0
        return _core.spd_solve(self._factor, unit)

    def diagonal(self) -> Floats:
        """Its diagonal: the squared lengths of the columns of the factor's inverse.

        Of these the part from the diagonal on is all that is not zero, so that a sixth
        of the products is left that the rows of the inverse would take.
        """
        diagonal = np.empty(self.size)
        for start in range(0, self.size, packed.BLOCK):
            stop = min(start + packed.BLOCK, self.size)
            columns = packed.inverse_columns(self._factor, self.size, start)
            diagonal[start:stop] = np.einsum("ij,ij->i", columns, columns)
        return diagonal


def _least_missed(
    inverse: _Inverse, diagonal: Floats, costs: Floats, count: int
) -> list[int]:
    """The neurons that cost least, one after the other.

    What the others miss of a neuron grows as some of them are given up, its square in
    inverse proportion to the diagonal of the inverse without these: of which a row is
    that of the whole one less what each of these takes with it.

    Parameters
    ----------
    diagonal : ndarray, shape (size,)
        Of the inverse.
    costs : ndarray, shape (size,)
        Of each neuron if it alone is given up.
    """
    left = diagonal.copy()
    places: list[int] = []
    taken, shares = np.empty((2, count, inverse.size))
    for number in range(count):
        loss = costs * diagonal / np.maximum(left, 1e-300)
        loss[places] = np.inf
        place = int(np.argmin(loss))
        row = inverse.rows([place])[0]
        row -= taken[:number, place] @ shares[:number]
        share = row / row[place]
        left -= row * share
        taken[number], shares[number] = row, share
        places.append(place)
    return places


def _gram(mlp: GatedMLP, inputs: Tensor) -> Floats:
    """Mean products of the activations of all neurons, packed."""
    size = mlp.down.d_in
    neurons = mlp.neurons(range(size), inputs.device)
    total = packed.zeros(size)
    for at in range(0, len(inputs), BLOCK):
        activations = mlp.activations(inputs[at : at + BLOCK], neurons)
        for start, stop, rows in packed.block_rows(total, size):
            some, others = activations[:, start:stop], activations[:, :stop]
            rows += (some.T @ others).cpu().numpy()
    total /= len(inputs)
    return total
