# SPDX-License-Identifier: Apache-2.0
"""What it costs to give up a neuron: divergence of next tokens on benign text."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cintervene.activations.scoring import likeliest
from cintervene.methods.common.gated_mlp import BLOCK, GatedMLP
from cintervene.methods.common.output_metric import spread
from cintervene.models.targets import Target
from cintervene.models.unembedding import TOKENS as WIDENED
from cintervene.models.unembedding import Unembedding
from cintervene.models.weights import as_floats
from cintervene.utils.arrays import Floats

__all__ = ["costs_alone"]

# Next tokens that are looked at, and rows at a time: their logits are as many numbers
# as rows x tokens x neurons.
TOKENS, ROWS = 32, 32
# Standard errors that are added to a mean: what seldom acts may by chance have done so
# less often than it will.
DOUBT = 2.0
# Of the mean cost: what a neuron costs at least that moves no token at all, if its
# column is of the mean length.
LEAST = 1e-6


def costs_alone(
    mlp: GatedMLP,
    unembedding: Unembedding,
    inputs: Tensor,
    states: Tensor,
    which: Sequence[int],
    missed: Floats,
) -> Floats:
    """What each of some neurons costs if it alone is given up, and made up for.

    To second order, docs/methods/pcr.md (15). A common metric of outputs (14) would
    take neurons for cheap that act seldom, and where the next token is open.

    Parameters
    ----------
    mlp, unembedding, inputs, states
        See `places.give_up`.
    which : sequence of int
        The neurons.
    missed : ndarray, shape (neurons, d_in)
        What the others miss of each neuron's activation, as a sum of all activations.

    Returns
    -------
    ndarray, shape (neurons,), float64
        Mean divergence, nats a token, at the upper end of what it may be elsewhere.
    """
    probabilities, tokens = likeliest(unembedding, states, TOKENS)
    known, places = torch.unique(tokens, return_inverse=True)
    columns = mlp.columns(which)
    logits = _moved(unembedding, known, mlp.down, columns)
    divisors = spread(states, unembedding.centred).cpu()
    every = mlp.neurons(range(mlp.down.d_in), inputs.device)
    shares = torch.from_numpy(missed).float().T.to(inputs.device)
    total, squares = torch.zeros(2, len(which), dtype=torch.float64)
    for at in range(0, len(inputs), BLOCK):
        lost = (mlp.activations(inputs[at : at + BLOCK], every) @ shares).cpu()
        for row in range(at, at + len(lost), ROWS):
            rows = slice(row, min(row + ROWS, at + len(lost)))
            varied = _variance(probabilities[rows], logits[places[rows]])
            moved = lost[rows.start - at : rows.stop - at] / divisors[rows, None]
            costs = (moved.square() * varied).double() / 2
            total += costs.sum(dim=0)
            squares += costs.square().sum(dim=0)
    upper = as_floats(total + DOUBT * squares.sqrt()) / len(inputs)
    lengths = as_floats(columns.square().sum(dim=1))
    upper += LEAST * upper.mean() * lengths / max(lengths.mean(), 1e-300)
    return upper if upper.any() else lengths


def _moved(
    unembedding: Unembedding, tokens: Tensor, down: Target, columns: Tensor
) -> Tensor:
    """Logits (tokens, neurons) that columns add for an activation of 1, on the CPU.

    But for what the final norm divides by. The rows of a head are wide, and there are
    tens of thousands of them: some at a time, where they are.
    """
    moved = torch.empty(len(tokens), len(columns))
    here = columns.T.to(unembedding.weight.device)
    for at in range(0, len(tokens), WIDENED):
        part = tokens[at : at + WIDENED]
        moved[at : at + WIDENED] = unembedding.directions(part.tolist(), down) @ here
    return moved


def _variance(probabilities: Tensor, logits: Tensor) -> Tensor:
    """Variances (n, neurons) of logits (n, tokens, neurons) of tokens so likely."""
    weights = probabilities[:, None]
    mean = weights @ logits
    variance: Tensor = (weights @ (logits - mean).square())[:, 0]
    return variance
