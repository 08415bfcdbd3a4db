# SPDX-License-Identifier: Apache-2.0
"""Detectors of words about to be said, as rows of gate and up projections.

docs/methods/pcr.md (9) and (10).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cintervene.methods.common.detector import fit_detector
from cintervene.methods.common.gated_mlp import (
    GatedMLP,
    Neurons,
    as_stored,
    constant_direction,
    scatter,
)
from cintervene.methods.pcr.hinge.groups import Group
from cintervene.methods.pcr.hinge.rows import HingeRows, Singles
from cintervene.utils.arrays import Floats
from cintervene.utils.progress import Step
from cintervene.utils.ranks import deal

Mask = npt.NDArray[np.bool_]

__all__ = ["WordNeurons", "fit_neurons"]

# Of the detectors: squared coefficients beside the mean loss, where words begin and
# where they go on, which is told more easily.
BEGIN_RIDGE, RIDGE = 0.1, 0.03
# Rows that a first guess takes for the word's most, that a detector is fitted to.
HARD, HARD_NEAR, SPREAD = 600, 300, 300
# Beginnings that are made of the word's mean and what others' beginnings differ by.
MADE, REPEATED = 250, 2
# Share of other tokens, and of those before benign words, at which a neuron may open:
# by the square of how far it does, so it hardly acts at most of them. At tokens of
# everyday text where no forbidden word comes next none may.
OPEN, OPEN_NEAR = 5e-3, 1e-3
# How much higher it is where words go on, in typical openings.
MARGIN = 0.35
# Share of its words' own rows at which a neuron may be closed, whatever else opens it.
CLOSED = 0.1
# What enters the activation function where a word is about to be said.
SHARPNESS = 30.0
# Of the covariance of other tokens, for the first guess.
SHRINK = 0.1
# Of the distance between the word's rows and others that an opening is measured in.
LEAST_GAP = 1e-3


@dataclass(frozen=True, eq=False)
class WordNeurons:
    """Neurons, each for a group of words.

    Attributes
    ----------
    groups : list of Group
        The words of each.
    mlp : GatedMLP
    rows : ndarray, shape (neurons, hidden)
        What they read: about 1 where a word of its group is about to be said, and
        negative where it is to be closed. A neuron's activation is the square of that.
    constant : ndarray, shape (hidden,)
        What makes 1 of any input, nearly.
    idle : Neurons
        Those whose places are taken; their biases stay.
    """

    groups: list[Group]
    mlp: GatedMLP
    rows: Floats
    constant: Floats
    idle: Neurons

    def projections(self, eager: Floats) -> tuple[Tensor, Tensor]:
        """Rows of the gate and of the up projection, as the model will hold them.

        Each (neurons, hidden).

        Parameters
        ----------
        eager : ndarray, shape (neurons,)
            How much earlier each neuron opens, in units of its typical opening.
        """
        rows = self.rows + eager[:, None] * self.constant
        halves = (
            (SHARPNESS, self.idle.gate_bias, self.mlp.gate.dtype),
            (1.0 / SHARPNESS, self.idle.up_bias, self.mlp.up.dtype),
        )
        gate, up = (
            as_stored(
                torch.from_numpy(
                    sharp * rows - bias.double().numpy()[:, None] * self.constant
                ),
                dtype,
            )
            for sharp, bias, dtype in halves
        )
        return gate, up


def fit_neurons(
    mlp: GatedMLP,
    rows: HingeRows,
    groups: list[Group],
    idle: Neurons,
    step: Step,
) -> WordNeurons:
    """Fit a detector for each group, and make neurons of them.

    Parameters
    ----------
    mlp : GatedMLP
    rows : HingeRows
    groups : list of Group
    idle : Neurons
        Those whose places are taken; their biases stay.
    step : callable
        Called with 1 for each detector.
    """
    fitting = _Fitting(rows)
    found = deal("detectors", groups, fitting.fit, lambda _: step(1))
    weights = np.stack(found)
    elsewhere = (rows.other, OPEN), (rows.near, OPEN_NEAR), (rows.everyday, 0.0)
    levels = np.max(
        [_quantiles(part, weights, share) for part, share in elsewhere if len(part)],
        axis=0,
    )
    own = [
        rows.said[group.of(rows)] @ direction
        for group, direction in zip(groups, weights, strict=True)
    ]
    typical = np.array([np.median(scores) for scores in own])
    begins = np.array([group.begins for group in groups])
    levels += np.where(begins, 0.0, MARGIN) * (typical - levels)
    levels = np.minimum(levels, [np.quantile(scores, CLOSED) for scores in own])
    gaps = np.maximum(typical - levels, LEAST_GAP * np.abs(typical))
    constant = fitting.constant
    reading = (weights - levels[:, None] * constant) / gaps[:, None]
    return WordNeurons(groups, mlp, reading, constant, idle)


class _Fitting:
    """What the detectors of all groups are fitted with."""

    def __init__(self, rows: HingeRows) -> None:
        self.rows = rows
        other = rows.other
        self.mean = other.mean(axis=0, dtype=np.float64)
        covariance = scatter(other, about=self.mean) / (len(other) - 1)
        shrink = SHRINK * np.trace(covariance) / len(covariance)
        self._inverse = np.linalg.inv(covariance + shrink * np.eye(len(covariance)))
        direction = constant_direction(other)
        # Its mean is 1, not a little less for the ridge.
        self.constant: Floats = direction / float(self.mean @ direction)
        self._spread = other[:: -(-len(other) // SPREAD)].astype(np.float64)
        # Answers that begin with a word, and words after other ones.
        self._kinds = rows.opening, rows.first & ~rows.opening
        self._differences = [self._within(kind) for kind in self._kinds]

    def _within(self, kind: Mask) -> Floats:
        """How a kind of beginnings of each word differ from their mean."""
        rows = self.rows
        found = [np.zeros((1, rows.said.shape[1]))]
        for word in range(int(rows.owners.max()) + 1):
            chosen = rows.said[(rows.owners == word) & kind].astype(np.float64)
            if len(chosen) > 1:
                scale = np.sqrt(len(chosen) / (len(chosen) - 1))
                found.append((chosen - chosen.mean(axis=0)) * scale)
        return np.concatenate(found)

    def fit(self, group: Group) -> Floats:
        """The direction (hidden,) that tells the words of a group best."""
        rows = self.rows
        said = rows.said[group.of(rows)].astype(np.float64)
        positive = [said] * REPEATED
        if group.begins:
            alone = (replace(group, words=[word]) for word in group.words)
            positive += [made for one in alone for made in self._made(one)]
        guess = self._inverse @ (said.mean(axis=0) - self.mean)
        negatives = [_hardest(rows.other, guess, HARD), self._spread]
        if len(rows.near):
            negatives.append(_hardest(rows.near, guess, HARD_NEAR))
        ridge = BEGIN_RIDGE if group.begins else RIDGE
        return fit_detector(np.concatenate(positive), negatives, ridge).weights

    def _made(self, group: Group) -> Iterator[Floats]:
        """A word's beginnings as they might be, for what those of others differ by."""
        rows, (word,) = self.rows, group.words
        own = group.of(rows)
        for kind, differences in zip(self._kinds, self._differences, strict=True):
            chosen = rows.said[own & kind]
            if len(chosen):
                count = len(differences)
                taken = (np.arange(MADE) * -(-count // MADE) + word) % count
                yield chosen.mean(axis=0) + differences[taken]


def _hardest(inputs: Singles, direction: Floats, count: int) -> Floats:
    """The inputs with the largest products."""
    if len(inputs) <= count:
        return inputs.astype(np.float64)
    scores = inputs @ direction.astype(inputs.dtype)
    return inputs[np.argpartition(-scores, count)[:count]].astype(np.float64)


def _quantiles(inputs: Singles, weights: Floats, share: float) -> Floats:
    """What each direction's product with inputs exceeds at a share of them."""
    scores = inputs @ weights.astype(inputs.dtype).T
    levels: Floats = np.quantile(scores, 1.0 - share, axis=0).astype(np.float64)
    return levels
