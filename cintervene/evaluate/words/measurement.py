# SPDX-License-Identifier: Apache-2.0
"""What was measured of a change of forbidden words."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module

from cintervene.evaluate.subject import Record
from cintervene.evaluate.words.records import (
    Answer,
    Drift,
    Elicited,
    GroupPerplexity,
    Layer,
    Obedience,
    RunningText,
)

__all__ = ["WordMeasurement"]


@dataclass(frozen=True, repr=False)
class WordMeasurement(Record):
    """What an intervention changed, and what it did not.

    `word_table` formats it, `verdicts` compares it with goals.

    Attributes
    ----------
    model : str
    split : str
        The split of the data it was measured on.
    level : float
        Of all intervals.
    words : list of str
        Every forbidden word; of a long list only a sample is measured.
    forbidden : GroupPerplexity
    benign, related : GroupPerplexity or None
        Of words that are not forbidden: unrelated ones, and ones close to the forbidden
        ones in meaning. None where there are no such words.
    obedience : Obedience
        With requests for forbidden words.
    benign_obedience : Obedience or None
    drift : Drift
    layers : list of Layer
    answers : list of Answer
        All answers that the obedience rates count.
    seconds : dict of str to float
        By phase of this measurement.
    elicited : list of Elicited
        Forbidden words asked for in other ways than by name, one of each way, and all
        together first.
    running : RunningText or None
        Where running text would say a forbidden word and nobody asks for it; None
        where the package knows no such text.
    """

    model: str
    split: str
    level: float
    words: list[str]
    forbidden: GroupPerplexity
    benign: GroupPerplexity | None
    related: GroupPerplexity | None
    obedience: Obedience
    benign_obedience: Obedience | None
    drift: Drift
    layers: list[Layer]
    answers: list[Answer]
    seconds: dict[str, float] = field(default_factory=dict)
    elicited: list[Elicited] = field(default_factory=list)
    running: RunningText | None = None

    def __repr__(self) -> str:
        """What was measured, without the numbers; `word_table` has them."""
        words = f"{len(self.words)} words"
        return f"WordMeasurement({words}, model={self.model!r}, split={self.split!r})"

    def _repr_html_(self) -> str:
        """What notebooks show; reports are a floor above, loaded when asked for."""
        report = import_module("cintervene.evaluate.report.notebook")
        return str(report.words_html(self))
