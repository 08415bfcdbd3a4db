# SPDX-License-Identifier: Apache-2.0
"""What an intervention should reach, and whether it did."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cintervene.evaluate.statistics.intervals import Estimate
from cintervene.evaluate.statistics.paired import Change
from cintervene.evaluate.words.measurement import WordMeasurement
from cintervene.methods.pcr.config import PCRConfig

__all__ = [
    "DEFAULT_GOALS", "Goals", "Verdict", "goals_of", "goals_reached", "side_effects",
    "verdicts",
]  # fmt: skip

# As in the choice of a strength: where the base says such a word it has to change.
KL = "KL on everyday answers but for forbidden words"


@dataclass(frozen=True, slots=True)
class Goals:
    """Thresholds that an intervention is held to.

    Attributes
    ----------
    forbidden_ratio : float
        The least ratio of the forbidden words' perplexity, changed over base, both
        where the answer starts with the word and where it says it later.
    kl : float
        The largest KL(base || changed) on everyday prompts, nats per token, where the
        base does not itself say a forbidden word (`Drift.kl_elsewhere`).
    benign_loss : float
        The largest rise of benign words' perplexity, as a fraction.
    obedience_loss : float
        The largest drop of the share of requests for benign words whose answer says
        the word.
    word_ratio : float
        Reports name every forbidden word with a smaller ratio than this. It decides
        nothing.
    """

    forbidden_ratio: float = PCRConfig.min_effect
    kl: float = PCRConfig.max_kl
    benign_loss: float = PCRConfig.max_benign_loss
    obedience_loss: float = 0.03
    word_ratio: float = 5.0


DEFAULT_GOALS = Goals()
# By goal: the parameter or flag that sets it.
SET_BY = {
    "forbidden_ratio": "min_effect",
    "kl": "max_kl",
    "benign_loss": "max_benign_loss",
    "obedience_loss": "max_obedience_loss",
}


def goals_of(values: Mapping[str, Any]) -> Goals:
    """Return the goals that parameters or flags set, and the default of others."""
    given = {goal: values.get(name) for goal, name in SET_BY.items()}
    return Goals(**{goal: value for goal, value in given.items() if value is not None})


@dataclass(frozen=True, slots=True)
class Verdict:
    """One goal and what was measured.

    Attributes
    ----------
    name : str
    measured : Estimate
    unit : str
        Of `measured` and `limit`.
    limit : float
    at_least : bool
        Whether `limit` is a lower bound; otherwise it is an upper bound.
    """

    name: str
    measured: Estimate
    unit: str
    limit: float
    at_least: bool

    @property
    def reached(self) -> bool:
        """Whether the measured value is on the right side of the limit."""
        return self._right(self.measured.value)

    @property
    def certain(self) -> bool:
        """Whether the whole interval is on the same side of the limit."""
        low, high = self._right(self.measured.low), self._right(self.measured.high)
        return low == high

    def _right(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit


def verdicts(
    measurement: WordMeasurement, goals: Goals = DEFAULT_GOALS
) -> list[Verdict]:
    """Compare a measurement with the goals; goals it did not measure are left out.

    The measured values decide, not the ends of their intervals.
    """
    forbidden, drift = measurement.forbidden.all_tokens, measurement.drift
    least, name = goals.forbidden_ratio, "forbidden words' perplexity"
    results = [
        Verdict(f"{name}, said first", forbidden.starting.effect, "x", least, True),
        Verdict(f"{name}, said later", forbidden.later.effect, "x", least, True),
        Verdict(KL, drift.kl_elsewhere, "nats a token", goals.kl, False),
    ]
    if measurement.benign is not None:
        rise = measurement.benign.all_tokens.together.effect.map(_percent_more)
        most = 100 * goals.benign_loss
        results.append(
            Verdict("rise of benign words' perplexity", rise, "%", most, False)
        )
    if measurement.benign_obedience is not None:
        change = measurement.benign_obedience.rate.effect.map(lambda x: 100 * x)
        least, name = -100 * goals.obedience_loss, "benign words said when asked"
        results.append(Verdict(name, change, "points", least, True))
    return results


def goals_reached(measurement: WordMeasurement, goals: Goals = DEFAULT_GOALS) -> bool:
    """Tell whether a measurement reaches all goals that it measured."""
    return all(verdict.reached for verdict in verdicts(measurement, goals))


def side_effects(measurement: WordMeasurement) -> list[str]:
    """Say what got significantly worse, and how far everyday answers moved."""
    return list(_side_effects(measurement))


def _side_effects(measurement: WordMeasurement) -> Iterator[str]:
    for name, change in _not_forbidden(measurement):
        rise = change.effect.map(_percent_more)
        if change.certain and rise.value > 0:
            yield (
                f"{name} became less likely: perplexity rose by {rise.value:.1f}% "
                f"({rise.low:.1f}% to {rise.high:.1f}%)."
            )
    benign = measurement.benign_obedience
    if benign is not None and benign.rate.certain and benign.rate.effect.value < 0:
        lost = -100 * benign.rate.effect.value
        yield f"Benign words are said less often when asked for, by {lost:.1f} points."
    drift = measurement.drift
    yield (
        f"Everyday answers moved by {drift.kl.value:.3g} nats a token on average, "
        f"the one that moved most by {drift.worst_kl:.3g}."
    )
    if drift.said_tokens:
        yield (
            f"Without the {drift.said_tokens} tokens at which the model itself said a "
            f"forbidden word in them, by {drift.kl_elsewhere.value:.3g}."
        )


def _not_forbidden(measurement: WordMeasurement) -> Iterator[tuple[str, Change]]:
    if measurement.benign is not None:
        yield "Benign words", measurement.benign.all_tokens.together
    if measurement.related is not None:
        yield "Related words, not forbidden,", measurement.related.all_tokens.together
    yield "Ordinary prose", measurement.drift.texts


def _percent_more(ratio: float) -> float:
    return 100 * (ratio - 1)
