# SPDX-License-Identifier: Apache-2.0
"""How strong an intervention should be: effect against drift on a tuning split."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from cintervene.activations.layer_stream import LayerStream
from cintervene.activations.scoring import (
    divergence,
    token_nll,
)
from cintervene.intervention.adapter import applicable_form
from cintervene.intervention.intervention import Intervention
from cintervene.methods.pcr.layerwise import LayerChange
from cintervene.models.parts import ModelParts
from cintervene.prompts.calibration import Calibration
from cintervene.prompts.target_spans import TargetSpan

__all__ = ["SweepPoint", "Tuning", "WordLimits", "knee"]

# What is measured on a few hundred tokens will be somewhat different elsewhere: drift
# may be larger, and the logarithm of the effect was up to a ninth smaller.
DRIFT_MARGIN, EFFECT_MARGIN = 0.75, 0.85
PROMINENCE = 0.1


@dataclass(frozen=True)
class WordLimits:
    """What an intervention shall reach, and drift that is still acceptable.

    Attributes
    ----------
    effect : float
        How many times its value the perplexity of forbidden words shall become.
    kl : float
        Nats a token between base and changed model on benign answers.
    benign_loss : float
        Rise of benign words' perplexity, as a fraction.
    """

    effect: float
    kl: float
    benign_loss: float


@dataclass(frozen=True)
class SweepPoint:
    """One strength, and what it did on the tuning split.

    Attributes
    ----------
    strength : float
    forbidden_ratio, benign_ratio : float
        Perplexity of forbidden and of benign words, changed over base.
    kl : float
        Nats a token between base and changed model on benign answers.
    """

    strength: float
    forbidden_ratio: float
    benign_ratio: float
    kl: float

    def strain(self, limits: WordLimits) -> float:
        """Share of the limits that is used up; above 1 they are crossed."""
        return max(self.kl / limits.kl, (self.benign_ratio - 1.0) / limits.benign_loss)

    def acceptable(self, limits: WordLimits) -> bool:
        """Whether the drift leaves a margin for what other material will show."""
        return self.strain(limits) <= DRIFT_MARGIN

    def effective(self, limits: WordLimits) -> bool:
        """Whether the effect, as a logarithm, is beyond what is asked by a margin."""
        return EFFECT_MARGIN * math.log(self.forbidden_ratio) >= math.log(limits.effect)


class Tuning:
    """Measures interventions on a tuning split, from the first changed layer on.

    Parameters
    ----------
    parts : ModelParts
    calibration : Calibration
        Its `tune_*` parts are used.
    first : int
        The first layer that interventions change.
    """

    def __init__(
        self,
        parts: ModelParts,
        calibration: Calibration,
        first: int,
    ) -> None:
        self._model, self._unembedding = parts.model, parts.unembedding
        groups = (
            calibration.tune_probes,
            calibration.tune_contrast,
            calibration.tune_benign,
        )
        self._streams = [LayerStream.of(parts.decoder, one, first) for one in groups]
        self._tokens = [_tokens(group) for group in groups[:2]]
        *spoken, self._benign_state = self._states()
        self._nll = [
            token_nll(parts.unembedding, state, tokens)
            for state, tokens in zip(spoken, self._tokens, strict=True)
        ]

    def measure(self, changes: Sequence[LayerChange], strength: float) -> SweepPoint:
        """Apply the changes for a moment and look at what they do."""
        pairs = [(change.target, change.update) for change in changes]
        trial = Intervention.of(self._model, pairs, reversible=False)
        with applicable_form(trial, self._model).applied(self._model):
            *spoken, benign_state = self._states()
        ratios = [
            float(np.exp(np.mean(token_nll(self._unembedding, state, tokens) - before)))
            for state, tokens, before in zip(
                spoken, self._tokens, self._nll, strict=True
            )
        ]
        kl = divergence(self._unembedding, self._benign_state, benign_state)
        return SweepPoint(strength, ratios[0], ratios[1], float(np.mean(kl)))

    def _states(self) -> list[torch.Tensor]:
        """What the final norm reads at the places that matter, with present weights."""
        return [stream.final() for stream in self._streams]


def knee(points: Sequence[SweepPoint], limits: WordLimits) -> SweepPoint:
    """Choose the point after which more effect costs too much.

    Points that use up more than `DRIFT_MARGIN` of the limits are left out, unless only
    among them are some within the limits that reach the effect asked for: then it is
    the first of these. Of the others it is the one farthest above the straight line
    from no change to the strongest of them, effect (log of the ratio) drawn over drift
    (share of the limits), each relative to that strongest point, among those that reach
    the effect asked for.
    Where no point stands out by `PROMINENCE`, effect and drift grow in step and it is
    the strongest; where none reaches the effect too. If all are left out, it is the
    one that strains the limits least.

    Parameters
    ----------
    points : sequence of SweepPoint
        In order of strength.
    """
    within = [point for point in points if point.acceptable(limits)]
    reaching = [
        point
        for point in points
        if point.strain(limits) <= 1.0 and point.effective(limits)
    ]
    if reaching and not any(point.effective(limits) for point in within):
        return reaching[0]
    if not within:
        return min(points, key=lambda point: point.strain(limits))
    effect = np.array([np.log(point.forbidden_ratio) for point in within])
    drift = np.array([max(point.strain(limits), 0.0) for point in within])
    if not effect.max() > 0.0:
        return within[0]
    gain = effect / effect.max() - drift / max(drift.max(), np.finfo(float).tiny)
    gain[[not point.effective(limits) for point in within]] = -np.inf
    if gain.max() < PROMINENCE:
        return within[int(np.argmax(effect))]
    return within[int(np.argmax(gain))]


def _tokens(group: Sequence[TargetSpan]) -> torch.Tensor:
    return torch.tensor([token for one in group for token in one.targets])
