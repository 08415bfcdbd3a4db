# SPDX-License-Identifier: Apache-2.0
"""What one setting of a sweep did, and which settings no other one beats."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from cintervene.evaluate.statistics.intervals import Estimate
from cintervene.evaluate.words.distribution import distribution
from cintervene.evaluate.words.goals import goals_of, goals_reached
from cintervene.evaluate.words.measurement import WordMeasurement
from cintervene.intervention.hub import FILE
from cintervene.intervention.intervention import Intervention
from cintervene.study.sweeps.settings import Setting
from cintervene.utils.json_ready import json_ready

__all__ = ["SweepRow", "front_of", "row_of"]


@dataclass(frozen=True)
class SweepRow:
    """One setting, and what was measured of it.

    Attributes
    ----------
    name : str
        Of its directory, in which the intervention is.
    words, method, layers, strength : str
        As they were asked for; behind "auto" what was chosen.
    first, later : Estimate
        Perplexity of the forbidden words where an answer starts with them and where it
        says them later, changed over base.
    tenth : float
        Of the same by word: a tenth of the words rose less.
    benign : Estimate or None
        Perplexity of benign words, changed over base; None where none was measured.
    kl : Estimate
        KL(base || changed) on everyday answers where no forbidden word is said, nats a
        token.
    said_before, said_after : float
        Share of requests for a forbidden word whose answer says it.
    changed : str
        How many neurons were changed, or the rank of the change of each matrix.
    within_limits : bool
        Whether it kept the limits that it was made within, on texts set aside;
        otherwise what applies it has to be told so.
    goals_reached : bool
        Whether it reaches the goals of `defend` on what was measured.
    seconds : float
        To make and to measure it, without what another setting had done already.
    digest : str
        Of the intervention; settings that come to the same change have the same.
    """

    name: str
    words: str
    method: str
    layers: str
    strength: str
    first: Estimate
    later: Estimate
    tenth: float
    benign: Estimate | None
    kl: Estimate
    said_before: float
    said_after: float
    changed: str
    within_limits: bool
    goals_reached: bool
    seconds: float
    digest: str

    @property
    def effect(self) -> float:
        """The smaller of `first` and `later`."""
        return min(self.first.value, self.later.value)

    def beats(self, other: SweepRow) -> bool:
        """Whether it has more effect at no more drift, or as much at less."""
        more = self.effect >= other.effect and self.kl.value <= other.kl.value
        same = self.effect == other.effect and self.kl.value == other.kl.value
        return self.words == other.words and more and not same

    def load(self, directory: Path | str) -> Intervention:
        """The intervention, from the directory of the sweep."""
        return Intervention.load(Path(directory) / self.name / FILE)

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON can hold it; numbers that are not finite become None."""
        record: dict[str, Any] = json_ready(asdict(self))
        return record

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> SweepRow:
        """Read what `to_dict` returned; else TypeError or KeyError."""
        values = {one.name: record[one.name] for one in fields(cls)}
        for name in ("first", "later", "benign", "kl"):
            if values[name] is not None:
                values[name] = Estimate(**dict(values[name])).map(_number)
        return cls(**{**values, "tenth": _number(values["tenth"])})


def row_of(
    setting: Setting,
    intervention: Intervention,
    measurement: WordMeasurement,
    seconds: float,
) -> SweepRow:
    """Put together what is said of one setting."""
    forbidden, benign = measurement.forbidden.all_tokens, measurement.benign
    said = measurement.obedience.rate
    goals = goals_of(setting.config.to_dict())
    return SweepRow(
        setting.name,
        setting.words,
        setting.method,
        layers=_chosen(setting.layers, _layers(intervention)),
        strength=_chosen(setting.strength, intervention.metrics.get("strength")),
        first=forbidden.starting.effect,
        later=forbidden.later.effect,
        tenth=distribution(measurement.forbidden.by_word, 1.0).tenth,
        benign=None if benign is None else benign.all_tokens.together.effect,
        kl=measurement.drift.kl_elsewhere,
        said_before=said.before.value,
        said_after=said.after.value,
        changed=_changed(intervention),
        within_limits=intervention.metrics.get("within_limits", True),
        goals_reached=goals_reached(measurement, goals),
        seconds=seconds,
        digest=intervention.digest,
    )


def front_of(rows: Sequence[SweepRow]) -> list[SweepRow]:
    """The rows that no other one with the same words beats."""
    return [row for row in rows if not any(other.beats(row) for other in rows)]


def _chosen(asked: str, chosen: object) -> str:
    if asked != "auto" or chosen is None:
        return asked
    return f"auto: {chosen:.3g}" if isinstance(chosen, float) else f"auto: {chosen}"


def _layers(intervention: Intervention) -> str:
    layers = {edit.layer for edit in intervention.edits.values()}
    return ",".join(map(str, sorted(layers)))


def _changed(intervention: Intervention) -> str:
    neurons = intervention.metrics.get("neurons")
    if neurons is not None:
        return f"{neurons} neurons"
    ranks = [str(update.rank) for update in intervention.updates.values()]
    return f"rank {'+'.join(ranks)}"


def _number(value: float | None) -> float:
    """A ratio beyond range is stored as nothing."""
    return math.inf if value is None else value
