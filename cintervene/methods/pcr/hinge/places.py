# SPDX-License-Identifier: Apache-2.0
"""Which neurons of an MLP are given up, and how the others stand in for them.

A neuron is given up whose loss the others can best make up for: of what all neurons do
on benign text, the least-squares fit without it is the closest (the rule of the optimal
brain surgeon, Hassibi and Stork 1993, in the metric of outputs (14)).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cintervene.methods.common.gated_mlp import BLOCK, GatedMLP
from cintervene.methods.common.output_metric import OutputMetric
from cintervene.solvers.update import LowRankUpdate
from cintervene.utils.arrays import Floats

__all__ = ["GivenUp", "give_up"]

# Of the fit, relative to the mean squared activation.
RIDGE = 1e-3


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


def give_up(mlp: GatedMLP, inputs: Tensor, metric: OutputMetric, count: int) -> GivenUp:
    """Choose neurons one after the other, each for the least loss.

    Parameters
    ----------
    mlp : GatedMLP
    inputs : Tensor, shape (n, hidden)
        What enters it on benign text.
    metric : OutputMetric
        Of what it returns.
    count : int
    """
    gram = _gram(mlp, inputs)
    ridge = RIDGE * float(np.diag(gram).mean())
    every = mlp.columns(range(mlp.down.d_in)).double().numpy()
    places = _least_missed(gram, ridge, metric.points(every), count)
    kept = np.setdiff1d(np.arange(len(gram)), places)
    fitted = gram[kept][:, kept] + ridge * np.eye(len(kept))
    shares = np.zeros((count, len(gram)))
    shares[:, kept] = np.linalg.solve(fitted, gram[kept][:, places]).T
    return GivenUp(places, LowRankUpdate(every[places].T, shares))


def _least_missed(gram: Floats, ridge: float, columns: Floats, count: int) -> list[int]:
    """The neurons whose columns (neurons, hidden) the others can best make up for."""
    inverse = np.linalg.inv(gram + ridge * np.eye(len(gram)))
    left = columns.copy()
    places: list[int] = []
    for _ in range(count):
        loss = np.square(left).sum(axis=1) / np.maximum(np.diag(inverse), 1e-300)
        loss[places] = np.inf
        place = int(np.argmin(loss))
        share = inverse[place] / inverse[place, place]
        left -= np.outer(share, left[place])
        inverse -= np.outer(inverse[:, place], share)
        places.append(place)
    return places


def _gram(mlp: GatedMLP, inputs: Tensor) -> Floats:
    """Mean products of the activations of all neurons, (neurons, neurons)."""
    neurons = mlp.neurons(range(mlp.down.d_in), inputs.device)
    total: Tensor = torch.zeros(mlp.down.d_in, mlp.down.d_in, dtype=torch.float64)
    for at in range(0, len(inputs), BLOCK):
        activations = mlp.activations(inputs[at : at + BLOCK], neurons)
        total += (activations.T @ activations).cpu()
    return (total / len(inputs)).numpy()
