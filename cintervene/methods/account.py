# SPDX-License-Identifier: Apache-2.0
"""What model cards say of the changes that a method makes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "BALL",
    "DESCENT",
    "PACKAGE",
    "REFUSED",
    "REVERSIBLE",
    "SEARCH",
    "STRENGTH",
    "UNKNOWN",
    "UNTRAINED",
    "Account",
    "Options",
]

Options = Mapping[str, Any]
UNTRAINED = "Nothing was trained."
REVERSIBLE = "Whoever holds the weights can take the change out again or train it away."
# Of what a method teaches to refuse.
PACKAGE = (
    "The package's requests are short and in English. Other kinds of requests, other "
    "languages and longer talks are refused as far as they look alike inside the model."
)
SEARCH = (
    "Who has the weights can search for words, or for a beginning of the answer, after "
    "which a harmful request is answered all the same."
)
DESCENT = (
    "None, and the method has none to give. The loss of the descent is not convex, so "
    "nothing proves that no smaller change does the same, nor that every request is "
    "{outcome}. "
)
BALL = (
    "What holds by construction is its size: before the strength multiplies it, each "
    "layer's change is within `radius` of its weight, both in the norm of benign "
    "inputs and outputs, or in the plain one where `ball` is frobenius."
)
# Of the points of a sweep: what was set, and what was measured.
STRENGTH = {"strength": "strength"}
REFUSED = {
    "refused": "share of harmful requests after which the first tokens of a refusal "
    "are each more likely than not"
}


class _Amount:
    """How many texts there were, of which ``{name:noun}`` says what they are."""

    def __init__(self, value: object) -> None:
        self._value = value

    def __format__(self, noun: str) -> str:
        whose = "the package's own" if self._value is None else str(self._value)
        return f"{whose} {noun}" if noun else whose


class _Recorded(dict[str, Any]):
    """Options by name; what is not recorded is said to be so."""

    def __getitem__(self, name: str) -> Any:
        value = super().__getitem__(name)
        return value if isinstance(value, float) else _Amount(value)

    def __missing__(self, name: str) -> _Amount:
        return _Amount("an unrecorded number of")


@dataclass(frozen=True)
class Account:
    """What is said of one kind of change.

    Options go where braces name them: ``{steps}``, or ``{harmful:harmful requests}``
    for texts of which the number is recorded, and nothing for the package's own.

    Attributes
    ----------
    asked : str
        What it was made for.
    found : str
        How it was found.
    unproved : str
        Why there is no certificate; empty where one comes with each layer.
    limits : tuple of str
        What it does not do, that of all changes left out.
    settings : mapping of str to str
        Of the points of a sweep, what was set rather than measured, and its meaning.
    measures : mapping of str to str
        What its own measures there mean; those of all methods need not be named.
    """

    asked: str
    found: str
    unproved: str
    limits: tuple[str, ...]
    settings: Mapping[str, str] = field(default_factory=dict)
    measures: Mapping[str, str] = field(default_factory=dict)

    def fill(self, text: str, options: Options) -> str:
        """Put the options where a text names them."""
        return text.format_map(_Recorded(options))


UNKNOWN = Account(
    asked="How the change was made was not recorded.",
    found="How it was found was not recorded.",
    unproved="",
    limits=("What it was made for, and so what it misses, was not recorded.",),
)
