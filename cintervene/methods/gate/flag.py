# SPDX-License-Identifier: Apache-2.0
"""Neurons that raise a flag at the token that ends a harmful request.

What they read there is the same, bit by bit, whatever answer is begun behind it:
docs/methods/gate.md (7).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from cintervene.methods.common.detector import (
    Detector,
    crossed_threshold,
    fit_detector,
)
from cintervene.methods.common.gated_mlp import GatedMLP, constant_direction
from cintervene.methods.gate.examples import GateExamples
from cintervene.methods.gate.watched import watched
from cintervene.models.decoder import Decoder
from cintervene.models.targets import Target
from cintervene.prompts.refusal_examples import TargetExample
from cintervene.solvers.update import LowRankUpdate
from cintervene.utils.arrays import Floats

__all__ = ["Flag", "fit_flag", "requests_of"]

# Share of benign requests, not fitted to, at which the flag may rise: it breaks off
# whole answers. And share of other tokens, of which there are many in each answer.
FALSE, STRAY = 0.02, 1e-4
# Log odds from where the flag begins to rise to where it stands, and how sharply.
STEP = 0.5
SHARPNESS = 3.0
# Other tokens of a kind that the detector is fitted to.
MOST = 6000


@dataclass(frozen=True, eq=False)
class Flag:
    """Two neurons, whose difference is a step.

    Attributes
    ----------
    mlp : GatedMLP
    places : list of int
        Of the neurons that give up theirs.
    detector : Detector
    constant : ndarray, shape (hidden,)
        What makes 1 of any input, nearly.
    threshold : float
        Log odds from which on the flag rises.
    written : ndarray, shape (hidden,)
        What the MLP returns besides where it stands.
    """

    mlp: GatedMLP
    places: list[int]
    detector: Detector
    constant: Floats
    threshold: float
    written: Floats

    def updates(self) -> list[tuple[Target, LowRankUpdate]]:
        """The changes of the three matrices."""
        idle = self.mlp.neurons(self.places)
        constant = self.constant
        gate, up = [], []
        # Biases stay as they are and are taken out.
        for at, biases in enumerate(
            zip(idle.gate_bias.tolist(), idle.up_bias.tolist(), strict=True)
        ):
            odds = self.detector.bias - self.threshold - at * STEP
            row = SHARPNESS * (self.detector.weights + odds * constant)
            gate.append(row - biases[0] * constant)
            up.append((1.0 / SHARPNESS - biases[1]) * constant)
        down = np.stack([self.written, -self.written]) / STEP
        return self.mlp.replaced(
            self.places,
            torch.from_numpy(np.stack(gate)),
            torch.from_numpy(np.stack(up)),
            torch.from_numpy(down),
        )


def requests_of(examples: Sequence[TargetExample]) -> list[tuple[int, ...]]:
    """The requests of examples, up to where the answer is about to begin, each once."""
    return list(dict.fromkeys(one.ids[: one.opening + 1] for one in examples))


def fit_flag(
    decoder: Decoder,
    mlp: GatedMLP,
    examples: GateExamples,
    written: Floats,
    ridge: float,
) -> Flag:
    """Fit the detector, and find how high it is to be set.

    Parameters
    ----------
    decoder : Decoder
    mlp : GatedMLP
    examples : GateExamples
    written : ndarray, shape (hidden,)
        See `Flag`.
    ridge : float
        See `fit_detector`.
    """
    behind = -max(1, len(examples.ending))
    harmful = [one for group in examples.harmful for one in group]

    def read(some: Sequence[TargetExample]) -> tuple[Floats, Floats]:
        """What enters the MLP at the requests' ends, and at some other tokens."""
        requests = _ending_so(requests_of(some), examples.ending)
        rows = _entering(decoder, mlp, requests)
        others = [np.delete(one, behind, axis=0) for one in rows]
        # Where answers begin and go on, without the refusals.
        begun = [one for one in some if one.prefill_length or not one.target_sets]
        begun = begun[:: -(-len(begun) // len(rows)) or 1]
        ids = [
            one.ids[: one.target_start if one.target_sets else None] for one in begun
        ]
        for one, inputs in zip(begun, _entering(decoder, mlp, ids), strict=True):
            others.append(inputs[one.opening + 1 :])
        return np.stack([one[behind] for one in rows]), _spread(np.concatenate(others))

    (positive, around), (benign, others) = read(harmful), read(examples.benign)
    shares = FALSE, STRAY
    reached = crossed_threshold(positive, [benign, others], shares, ridge)
    threshold = max(0.0, reached)
    detector = fit_detector(positive, [benign, np.concatenate([others, around])], ridge)
    ordinary = np.concatenate([benign, others])
    places = mlp.idlest(torch.from_numpy(ordinary).float(), 2)
    return Flag(mlp, places, detector, constant_direction(ordinary), threshold, written)


def _entering(
    decoder: Decoder, mlp: GatedMLP, sequences: Sequence[Sequence[int]]
) -> list[Floats]:
    """What enters an MLP at all tokens (n, hidden) of some sequences."""
    modules = {"mlp": mlp.block.module}
    found = {
        index: parts["mlp"][0].double().cpu().numpy()
        for index, parts in watched(decoder, mlp.block.layer, modules, sequences)
    }
    return [found[index] for index in range(len(found))]


def _ending_so(
    requests: Sequence[tuple[int, ...]], ending: Sequence[int]
) -> list[tuple[int, ...]]:
    """Those that the chat template ends in this way."""
    size = len(ending)
    return [one for one in requests if one[len(one) - size :] == tuple(ending)]


def _spread(rows: Floats) -> Floats:
    """Rows evenly taken from all, at most so many."""
    return rows[:: -(-len(rows) // MOST)]
