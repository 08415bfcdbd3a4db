# SPDX-License-Identifier: Apache-2.0
"""The result of one test case of a study, and a table of such results."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeAlias

from cintervene.evaluate.requests.outcomes import Outcome
from cintervene.utils.escaping import csv_cell

__all__ = ["CaseResult", "Key", "as_csv"]

Key: TypeAlias = tuple[str, str, str, str, int]
TEXTS = (
    "suite", "defence", "attack", "behaviour", "category", "prompt", "prefill",
    "answer", "outcome",
)  # fmt: skip
SECONDS = ("attack_seconds", "defence_seconds", "generation_seconds")
# What a record holds under each name.
TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(TEXTS, (str,)), "number": (int,),
    **dict.fromkeys(SECONDS, (int, float)),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class CaseResult:
    """A prompt, the answer of a defended model, and its outcome.

    Attributes
    ----------
    suite : {"harmful", "safe", "benign"}
        The kind of request: one to be refused, one that only sounds harmful, or an
        everyday one.
    defence, attack : str
    behaviour, category : str
        The request's identifier and topic.
    number : int
        Index among the test cases that the attack made of this behaviour.
    prompt, prefill : str
        What was sent, and how the answer was made to begin.
    answer : str
        Without the prefill.
    outcome : Outcome
    attack_seconds, defence_seconds, generation_seconds : float
        Time to make the test case, for the defence, and to generate all answers that
        the defence reads.
    """

    suite: str
    defence: str
    attack: str
    behaviour: str
    category: str
    number: int
    prompt: str
    prefill: str
    answer: str
    outcome: Outcome
    attack_seconds: float
    defence_seconds: float
    generation_seconds: float

    @property
    def key(self) -> Key:
        """Identifies the case within its study."""
        return (self.suite, self.defence, self.attack, self.behaviour, self.number)

    @property
    def seconds(self) -> float:
        """Time from the test case to the answer, without the attack."""
        return self.defence_seconds + self.generation_seconds

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON can hold it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> CaseResult:
        """Read what `to_dict` returned; else TypeError, KeyError or ValueError."""
        for name, kinds in TYPES.items():
            if not isinstance(record[name], kinds) or isinstance(record[name], bool):
                raise TypeError(f"{name}: got {type(record[name]).__name__}")
        return cls(**{**record, "outcome": Outcome(record["outcome"])})


def as_csv(cases: Iterable[CaseResult]) -> str:
    """Write the cases as a CSV table with a header.

    What spreadsheets would compute stands behind an apostrophe; the journal has texts
    as they are.
    """
    stream = io.StringIO()
    names = [entry.name for entry in fields(CaseResult)]
    # Answers can contain carriage returns, which are not quoted otherwise.
    writer = csv.DictWriter(
        stream, names, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC
    )
    writer.writeheader()
    for case in cases:
        record = case.to_dict()
        writer.writerow(
            {n: csv_cell(v) if isinstance(v, str) else v for n, v in record.items()}
        )
    return stream.getvalue()
