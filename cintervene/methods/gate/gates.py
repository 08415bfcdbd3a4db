# SPDX-License-Identifier: Apache-2.0
"""Neurons that open where a harmful request is to be refused, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cintervene.methods.common.detector import (
    Detector,
    crossed_threshold,
    fit_detector,
)
from cintervene.methods.common.gated_mlp import (
    GatedMLP,
    Neurons,
    as_stored,
    constant_direction,
)
from cintervene.methods.gate.examples import (
    ANSWERING,
    HIDDEN,
    OPENING,
    READING,
    REFUSING,
)
from cintervene.utils.arrays import Floats
from cintervene.utils.ranks import deal

__all__ = ["EVEN", "Gates", "Thresholds", "Tokens", "fit_gates"]

# Of these there are many.
Singles = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

# Tokens of a group that a detector is fitted to: of most groups, and of those that are
# easily told apart.
MOST, FEW = 12000, 3000
# Log odds at which the neurons of the refusal's own tokens open, which are recognised
# by these tokens alone.
CERTAIN = 1.0
# The roles at which an answer is about to begin.
OPENINGS = (OPENING, HIDDEN)
# Shares at which the neuron for requests in templates may open of harmless ones in
# them, of other harmless ones and of other tokens, none of them fitted to; and how many
# times the ridge is larger for it: there are many more templates than it is fitted to.
FALSE_HIDDEN = (0.2, 0.03, 0.001)
HIDDEN_RIDGE = 10.0


@dataclass(frozen=True, eq=False)
class Tokens:
    """What enters an MLP at some tokens, and where these stand.

    Attributes
    ----------
    inputs : ndarray of float32, shape (n, hidden)
    roles : ndarray of int, shape (n,)
        See `examples.roles`.
    """

    inputs: Singles
    roles: Labels

    def at(self, role: int) -> Singles:
        """Those of a role."""
        inputs: Singles = self.inputs[self.roles == role]
        return inputs

    def beside(self, *roles: int) -> Singles:
        """Those of all other roles."""
        inputs: Singles = self.inputs[~np.isin(self.roles, roles)]
        return inputs

    @property
    def to_be_found(self) -> list[int]:
        """The roles that there are, but for requests' own tokens."""
        return [int(role) for role in np.unique(self.roles) if role != READING]


class Thresholds(NamedTuple):
    """Log odds at which neurons open.

    Attributes
    ----------
    opening : float
        Where the answer is about to begin.
    answering : float
        Within a prefilled answer.
    """

    opening: float
    answering: float


# What an activation is made 1 at, on average.
EVEN = Thresholds(0.0, 0.0)


@dataclass(frozen=True, eq=False)
class Gates:
    """Detectors as neurons.

    Attributes
    ----------
    mlp : GatedMLP
    detectors : dict of int to Detector
        By the role of the tokens to be found.
    idle : Neurons
        Those whose places are taken; their biases stay.
    constant : Tensor, shape (hidden,)
        What makes 1 of any input, nearly.
    level : float
        What it does make on average, a little less for its ridge.
    sizes : Tensor, shape (neurons,)
        What the constant is divided by, so that at the tokens to be found the mean
        activation is 1.
    sharpness : float
        Of the inputs of the activation function, in units of log odds.
    """

    mlp: GatedMLP
    detectors: dict[int, Detector]
    idle: Neurons
    constant: Tensor
    level: float
    sizes: Tensor
    sharpness: float

    def gate(self, thresholds: Thresholds) -> Tensor:
        """Rows (neurons, hidden) of the gate projection, as the model will hold them.

        Parameters
        ----------
        thresholds : Thresholds
            At which the neurons open that tell a harmful request.
        """
        least = {
            OPENING: thresholds.opening,
            ANSWERING: thresholds.answering,
            HIDDEN: 0.0,
        }
        weights = np.stack([one.weights for one in self.detectors.values()])
        bias = np.array(
            [one.bias - least.get(at, CERTAIN) for at, one in self.detectors.items()]
        )
        constant = self.constant.double().numpy()
        rows = self.sharpness * (weights + bias[:, None] * constant)
        # What biases add is taken out.
        biases = self.idle.gate_bias.double().numpy()[:, None]
        rows -= biases * (constant / self.level)
        return as_stored(torch.from_numpy(rows), self.mlp.gate.dtype)

    @property
    def up(self) -> Tensor:
        """Rows (neurons, hidden) of the up projection, as the model will hold them."""
        return as_stored(self.constant / self.sizes[:, None], self.mlp.up.dtype)

    def neurons(self, thresholds: Thresholds) -> Neurons:
        """The neurons, as the model will hold them."""
        biases = self.idle.gate_bias, self.idle.up_bias
        return Neurons(self.gate(thresholds), self.up, *biases)

    def size(self, index: int, inputs: Tensor) -> Tensor:
        """The entry of `sizes` for a neuron and the tokens that it is to find."""
        gate, bias = self.gate(EVEN)[index, None], self.idle.gate_bias[index, None]
        nothing, one = torch.zeros(1), torch.ones(1)
        scaled, alone = (
            self.mlp.activations(inputs, Neurons(gate, up, bias, up_bias)).mean()
            for up, up_bias in (
                (self.constant[None], nothing),
                (torch.zeros_like(gate), one),
            )
        )
        return scaled / (1.0 - self.idle.up_bias[index] * alone)


def fit_gates(
    mlp: GatedMLP,
    harmful: Tokens,
    benign: Tokens,
    places: Sequence[int],
    ridge: float,
    sharpness: float,
) -> Gates:
    """Fit a detector for each role: docs/methods/gate.md (2) to (4).

    Parameters
    ----------
    harmful, benign : Tokens
    places : sequence of int
        Of the neurons that give up theirs, one for each role of `harmful` that is to be
        found.
    ridge : float
        See `fit_detector`.
    sharpness : float
    """
    positive = {role: _spread(harmful.at(role)) for role in harmful.to_be_found}

    def fitted(role: int) -> Detector:
        others = list(_negatives(role, harmful, benign))
        if role != HIDDEN:
            return fit_detector(positive[role], others, ridge)
        strong = HIDDEN_RIDGE * ridge
        least = crossed_threshold(positive[role], others, FALSE_HIDDEN, strong)
        found = fit_detector(positive[role], others, strong)
        return replace(found, bias=found.bias - least)

    detectors = deal("detectors of roles", list(positive), fitted)
    ordinary = _spread(benign.inputs)
    constant = constant_direction(ordinary)
    gates = Gates(
        mlp,
        dict(zip(positive, detectors, strict=True)),
        mlp.neurons(places),
        torch.from_numpy(constant).float(),
        float((ordinary @ constant).mean()),
        torch.ones(len(places)),
        sharpness,
    )
    sizes = [
        gates.size(at, torch.from_numpy(inputs))
        for at, inputs in enumerate(positive.values())
    ]
    return replace(gates, sizes=torch.stack(sizes))


def _negatives(role: int, harmful: Tokens, benign: Tokens) -> Iterator[Floats]:
    """Groups of tokens at which the detector of a role must not open.

    In harmful conversations these are the answers' other tokens: what a neuron adds to
    the request's own changes little. Where one kind of answer begins, another may.
    """
    same = OPENINGS if role in OPENINGS else (role,)
    answers = harmful.beside(READING, *same)
    if role >= REFUSING:
        yield _spread(answers, FEW)
        yield _spread(benign.beside(ANSWERING), FEW)
        yield _spread(benign.at(ANSWERING))
    else:
        for one in sorted(same, key=lambda one: one != role):
            if len(found := benign.at(one)):
                yield _spread(found)
        most = FEW if role == HIDDEN else MOST
        rest = _spread(benign.beside(*same), most), _spread(answers, most)
        yield np.concatenate(rest)


def _spread(rows: Singles, most: int = MOST) -> Floats:
    """Rows evenly taken from all, at most so many."""
    return rows[:: -(-len(rows) // most) or 1].astype(np.float64)
