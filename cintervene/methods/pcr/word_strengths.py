# SPDX-License-Identifier: Apache-2.0
"""Strengths by word for a change that acts everywhere: the most-violated rule.

Each word is measured on the tuning split; more is asked of those that have risen least,
less of those far beyond the others, and the layers are solved again. So what drift the
limits allow goes to the words that need it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from cintervene.methods.pcr.layerwise import Layerwise
from cintervene.methods.pcr.strength import (
    DRIFT_MARGIN,
    EFFECT_MARGIN,
    Candidate,
    Measured,
    Tuning,
    WordLimits,
)
from cintervene.utils.arrays import Floats
from cintervene.utils.clock import Clock
from cintervene.utils.progress import Progress

__all__ = ["ROUNDS", "best_by_word", "even_out", "evened", "tenth"]

# What all words are asked for at first, and how often they are measured.
FIRST, ROUNDS = 16.0, 4
# A few answers tell a word's effect roughly: the exponent takes part of what they say.
TRUST = 0.7
# How much less and more is asked of a word at once, relative to the others; and of all.
RELATIVE, COMMON = (0.5, 1.7), (0.5, 1.5)
# Nats below which a word counts as not moved.
LEAST = 0.2
# What is aimed at is met to about a tenth.
CLOSE = 1.1
# Rounds end where all are asked for the same as before but for this.
SETTLED = 0.05


def even_out(
    layerwise: Layerwise,
    tuning: Tuning,
    words: Sequence[str],
    limits: WordLimits,
    clock: Clock,
    progress: Progress,
) -> list[Candidate]:
    """Solve and measure in turns, asking each word for what it was seen to need.

    Of all words so much is asked that a tenth of them are left below the effect
    required, or as much as the limits allow.

    Returns
    -------
    list of Candidate
        In the order tried, with the strengths and effects of each word.
    """
    strengths = dict.fromkeys(words, FIRST)
    candidates: list[Candidate] = []
    for number in range(ROUNDS):
        progress("solving", number, ROUNDS)
        with clock.phase("solve"):
            changes = layerwise.solve(strengths)
        with clock.phase("tune"):
            updates = [(change.target, change.update) for change in changes]
            mean = float(np.mean(list(strengths.values())))
            measured = tuning.measure(updates, mean)
        candidates.append(
            Candidate(changes, measured.point, strengths, measured.by_word)
        )
        wanted = evened(strengths, measured, limits)
        moved = [abs(math.log(wanted[word] / strengths[word])) for word in words]
        if max(moved) < SETTLED:
            break
        strengths = wanted
    progress("solving", ROUNDS, ROUNDS)
    return candidates


def evened(
    strengths: Mapping[str, float], measured: Measured, limits: WordLimits
) -> dict[str, float]:
    """What to ask each word for next.

    Parameters
    ----------
    strengths : mapping of str to float
    measured : Measured
        What these did.
    limits : WordLimits
    """
    risen = np.array([measured.by_word[word] for word in strengths])
    reference = max(float(np.median(risen)), LEAST)
    relative = (reference / np.maximum(risen, LEAST)) ** TRUST
    # Drift grows with the square of a change, effect in proportion to it.
    strain = max(measured.point.strain(limits), np.finfo(float).tiny)
    goal = math.log(limits.effect) / EFFECT_MARGIN
    common = min(math.sqrt(DRIFT_MARGIN / strain), goal / max(tenth(risen), LEAST))
    asked = np.array(list(strengths.values()))
    asked = asked * np.clip(relative, *RELATIVE) * np.clip(common, *COMMON)
    return dict(zip(strengths, asked.tolist(), strict=True))


def best_by_word(candidates: Sequence[Candidate], limits: WordLimits) -> Candidate:
    """The one of which a tenth of the words have risen most within the limits.

    Of those alone that reach the effect on average, where there are any. Where a tenth
    has risen enough for some, the one of these that drifts least; where none keeps the
    limits, the one that strains them least.
    """
    most = CLOSE * DRIFT_MARGIN
    within = [one for one in candidates if one.point.strain(limits) <= most] or [
        one for one in candidates if one.point.strain(limits) <= 1.0
    ]
    if not within:
        return min(candidates, key=lambda one: one.point.strain(limits))
    reaching = [one for one in within if one.point.forbidden_ratio >= limits.effect]
    within = reaching or within
    goal = math.log(limits.effect)
    enough = [one for one in within if EFFECT_MARGIN * _tenth(one) >= goal]
    if enough:
        return min(enough, key=lambda one: one.point.strain(limits))
    return max(within, key=_tenth)


def tenth(risen: Floats) -> float:
    """Nats by which all but a tenth of the words have risen at least."""
    return float(np.quantile(risen, 0.1, method="lower"))


def _tenth(candidate: Candidate) -> float:
    return tenth(np.array(list(candidate.by_word.values())))
