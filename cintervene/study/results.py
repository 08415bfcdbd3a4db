# SPDX-License-Identifier: Apache-2.0
"""One test case of a study: what was asked of which defence, and what became of it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeAlias

from cintervene.evaluate.requests.outcomes import Outcome

__all__ = ["CaseResult", "Key", "as_csv"]

Key: TypeAlias = tuple[str, str, str, str, int]


@dataclass(frozen=True, slots=True)
class CaseResult:
    """A prompt, the answer that a defended model gave, and the judgement of it.

    Attributes
    ----------
    suite : {"harmful", "safe", "benign"}
        What kind of request it is: one to be refused, one that only sounds like it, or
        an everyday one.
    defence, attack : str
    behaviour, category : str
        The request's identifier, and what it is about.
    number : int
        Counts the test cases that the attack made of this behaviour.
    prompt, prefill : str
        What was sent, and the beginning of the answer that was put in the model's
        mouth.
    answer : str
        Without the prefill.
    outcome : Outcome
    attack_seconds, defence_seconds, generation_seconds : float
        To make the test case, to defend, and to generate all that the defence reads.
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
        """What tells the case from every other one of its study."""
        return (self.suite, self.defence, self.attack, self.behaviour, self.number)

    @property
    def seconds(self) -> float:
        """From the test case to the answer, without the time of the attacker."""
        return self.defence_seconds + self.generation_seconds

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON can hold it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> CaseResult:
        """Read what `to_dict` gave; TypeError, KeyError or ValueError if it is not."""
        return cls(**{**record, "outcome": Outcome(record["outcome"])})


def as_csv(cases: Iterable[CaseResult]) -> str:
    """Write the cases as a table with a head, one a record."""
    stream = io.StringIO()
    names = [entry.name for entry in fields(CaseResult)]
    # Answers hold carriage returns, which are not quoted otherwise.
    writer = csv.DictWriter(
        stream, names, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC
    )
    writer.writeheader()
    writer.writerows(case.to_dict() for case in cases)
    return stream.getvalue()
