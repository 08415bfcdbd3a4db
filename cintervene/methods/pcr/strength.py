# SPDX-License-Identifier: Apache-2.0
"""How strong an intervention should be: effect against drift on a tuning split."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self

import numpy as np
import torch

from cintervene.activations.last_block import LastBlock
from cintervene.activations.layer_stream import Asked, LayerStream, finals
from cintervene.activations.scoring import Divergence, token_nll
from cintervene.intervention.adapter import applicable_form
from cintervene.intervention.intervention import Intervention
from cintervene.methods.pcr.layerwise import LayerChange, Layerwise
from cintervene.models.parts import ModelParts
from cintervene.models.targets import Target
from cintervene.prompts.calibration import Calibration
from cintervene.prompts.target_spans import TargetSpan
from cintervene.solvers.update import LowRankUpdate
from cintervene.utils.arrays import Floats
from cintervene.utils.clock import Clock
from cintervene.utils.kept import kept
from cintervene.utils.progress import Progress

__all__ = [
    "Candidate",
    "Measured",
    "SweepPoint",
    "Tuning",
    "WordLimits",
    "knee",
    "sweep",
]

# What is measured on a few hundred tokens will be somewhat different elsewhere: drift
# may be larger, and the logarithm of the effect was up to a ninth smaller.
DRIFT_MARGIN, EFFECT_MARGIN = 0.75, 0.85
PROMINENCE = 0.1
# Least number of strengths that make a curve.
CURVE = 3


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
        Nats a token between base and changed model on benign answers, but where the
        base says a forbidden word in them itself.
    least_ratio : float
        Perplexity of the forbidden word that rose least, changed over base.
    """

    strength: float
    forbidden_ratio: float
    benign_ratio: float
    kl: float
    least_ratio: float

    def strain(self, limits: WordLimits) -> float:
        """Share of the limits that is used up; above 1 they are crossed."""
        return max(self.kl / limits.kl, (self.benign_ratio - 1.0) / limits.benign_loss)

    def acceptable(self, limits: WordLimits) -> bool:
        """Whether the drift leaves a margin for what other material will show."""
        return self.strain(limits) <= DRIFT_MARGIN

    def effective(self, limits: WordLimits) -> bool:
        """Whether the effect, as a logarithm, exceeds what is required by a margin."""
        return EFFECT_MARGIN * math.log(self.forbidden_ratio) >= math.log(limits.effect)


@dataclass(frozen=True)
class Measured:
    """What changes did on the tuning split.

    Attributes
    ----------
    point : SweepPoint
    by_word : dict of str to float
        Nats a token by which each forbidden word has become less likely.
    """

    point: SweepPoint
    by_word: dict[str, float]


@dataclass(frozen=True, eq=False)
class Candidate:
    """The changes found at one strength, and what they do."""

    changes: list[LayerChange]
    point: SweepPoint

    def updates(self) -> list[tuple[Target, LowRankUpdate]]:
        """The changes of the layers' weights."""
        return [(change.target, change.update) for change in self.changes]


class Tuning:
    """Measures interventions on a tuning split, from the first changed layer on.

    Parameters
    ----------
    parts : ModelParts
    calibration : Calibration
        Its `tune_*` parts are used.
    first : int
        The first layer that interventions change.
    block : Target, optional
        The MLP of that layer, as a whole, if it is all that they change.
    streams : sequence of LayerStream, optional
        What is `asked`, before that layer, if it has been brought there.
    """

    def __init__(
        self,
        parts: ModelParts,
        calibration: Calibration,
        first: int,
        block: Target | None = None,
        streams: Sequence[LayerStream] = (),
    ) -> None:
        self._model, self._unembedding = parts.model, parts.unembedding
        words = (calibration.tune_forget, calibration.tune_near_negatives)
        streams = streams or LayerStream.several(
            parts.decoder, self.asked(calibration), first, block=block
        )
        last = block and LastBlock.of(parts.decoder, streams, block)
        # What the final norm reads at the measured positions, by present weights.
        self._states = last.states if last else partial(finals, streams)
        self._tokens = [_tokens(spans) for spans in words]
        *states, retain_state = self._states()
        self._drift = Divergence(self._unembedding, retain_state)
        self._nll = self._word_nll(states)
        forget, retain = calibration.tune_forget, calibration.tune_retain
        owners = [span.word for span in forget for _ in span.targets]
        self._owners = np.array(owners)
        self._words = list(dict.fromkeys(owners))
        said = [at for span in calibration.tune_said for at in span]
        if not said:
            said = [False] * sum(len(span.targets) for span in retain)
        self._said = np.array(said)

    @staticmethod
    def asked(calibration: Calibration) -> list[Asked]:
        """The texts, each kind for a stream of its own."""
        groups = (
            calibration.tune_forget,
            calibration.tune_near_negatives,
            calibration.tune_retain,
        )
        return list(map(Asked, groups))

    @classmethod
    def shared(
        cls,
        parts: ModelParts,
        calibration: Calibration,
        first: int,
        block: Target | None = None,
        streams: Sequence[LayerStream] = (),
    ) -> Self:
        """Like a call of the class, which is made once for all strengths."""
        make = partial(cls, parts, calibration, first, block, streams)
        return kept("tuning", (calibration, first, block is None), make)

    def measure(
        self, updates: Sequence[tuple[Target, LowRankUpdate]], strength: float
    ) -> Measured:
        """Apply the changes for a moment and look at what they do."""
        trial = Intervention.of(self._model, updates, reversible=False)
        with applicable_form(trial, self._model).applied(self._model):
            *states, retain_state = self._states()
        risen = [
            after - before
            for after, before in zip(self._word_nll(states), self._nll, strict=True)
        ]
        by_word = {
            word: float(np.mean(risen[0][self._owners == word])) for word in self._words
        }
        forbidden, benign = (float(np.exp(np.mean(nats))) for nats in risen)
        kl = self._drift.of(retain_state)
        drift = float(np.sum(kl[~self._said]) / len(kl))
        least = float(np.exp(min(by_word.values())))
        return Measured(SweepPoint(strength, forbidden, benign, drift, least), by_word)

    def _word_nll(self, states: Sequence[torch.Tensor]) -> list[Floats]:
        """Nats of each token of forbidden and of benign words."""
        return [
            token_nll(self._unembedding, state, tokens)
            for state, tokens in zip(states, self._tokens, strict=True)
        ]


def sweep(
    layerwise: Layerwise,
    tuning: Tuning,
    strengths: Sequence[float],
    limits: WordLimits,
    clock: Clock,
    progress: Progress,
) -> list[Candidate]:
    """Try strengths in order, until the limits are crossed or the effect is reached."""
    candidates: list[Candidate] = []
    for index, strength in enumerate(strengths):
        progress("solving", index, len(strengths))
        with clock.phase("solve"):
            changes = layerwise.solve(strength)
        with clock.phase("tune"):
            updates = [(change.target, change.update) for change in changes]
            point = tuning.measure(updates, strength).point
        candidates.append(Candidate(changes, point))
        enough = len(candidates) >= CURVE and point.effective(limits)
        if enough or point.strain(limits) > 1.0:
            break
    progress("solving", len(strengths), len(strengths))
    return candidates


def knee(points: Sequence[SweepPoint], limits: WordLimits) -> SweepPoint:
    """Choose the point after which more effect costs too much.

    Points that use up more than `DRIFT_MARGIN` of the limits are left out, unless only
    among them are some within the limits that reach the required effect: then it is
    the first of these. Of the others it is the one farthest above the straight line
    from no change to the strongest of them, effect (log of the ratio) drawn over drift
    (share of the limits), each relative to that strongest point, among those that reach
    the required effect.
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


def _tokens(spans: Sequence[TargetSpan]) -> torch.Tensor:
    return torch.tensor([token for span in spans for token in span.targets])
