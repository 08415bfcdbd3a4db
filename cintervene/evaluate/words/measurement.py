# SPDX-License-Identifier: Apache-2.0
"""What was measured of an intervention."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from cintervene.evaluate.report.table import text_table
from cintervene.evaluate.words.goals import (
    DEFAULT_GOALS,
    Goals,
    Verdict,
    verdicts,
)
from cintervene.evaluate.words.records import (
    Answer,
    Drift,
    Layer,
    Obedience,
    Spoken,
)
from cintervene.utils.json_ready import json_ready

__all__ = ["WordMeasurement"]


@dataclass(frozen=True, repr=False)
class WordMeasurement:
    """What an intervention did, and what it did not do.

    Attributes
    ----------
    model : str
    split : str
        The part of the data it was measured on.
    level : float
        Of all intervals.
    words : list of str
        Every forbidden word; of a long list only some are looked at.
    forbidden : Spoken
    benign, related : Spoken or None
        Of words that nobody forbade: unrelated ones, and ones near the forbidden ones
        in meaning. None where there are no such words.
    obedience : Obedience
        To requests for forbidden words.
    benign_obedience : Obedience or None
    drift : Drift
    layers : list of Layer
    answers : list of Answer
        All that the obedience rates count.
    seconds : dict of str to float
        By phase of this measurement.
    """

    model: str
    split: str
    level: float
    words: list[str]
    forbidden: Spoken
    benign: Spoken | None
    related: Spoken | None
    obedience: Obedience
    benign_obedience: Obedience | None
    drift: Drift
    layers: list[Layer]
    answers: list[Answer]
    seconds: dict[str, float] = field(default_factory=dict)

    def __repr__(self) -> str:
        """The table: what changed and what did not."""
        return self.table()

    def verdicts(self, goals: Goals = DEFAULT_GOALS) -> list[Verdict]:
        """What was asked of the intervention, each with whether it was reached."""
        return verdicts(self, goals)

    def goal_reached(self, goals: Goals = DEFAULT_GOALS) -> bool:
        """Tell whether all that was asked of the intervention was reached."""
        return all(verdict.reached for verdict in self.verdicts(goals))

    def table(self, goals: Goals = DEFAULT_GOALS) -> str:
        """What changed and what did not, as text for a terminal."""
        return text_table(self, goals)

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON can hold it; numbers that are not finite become None."""
        found: dict[str, Any] = json_ready(asdict(self))
        return found
