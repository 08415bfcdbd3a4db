# SPDX-License-Identifier: Apache-2.0
"""What model cards say of the changes that a method makes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = [
    "BALL",
    "DESCENT",
    "PACKAGE",
    "REVERSIBLE",
    "SEARCH",
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


class _Recorded(dict[str, Any]):
    """Options by name; of what was not recorded it is said so."""

    def __missing__(self, name: str) -> str:
        return "an unrecorded number of"


@dataclass(frozen=True)
class Account:
    """What is said of one kind of change; options go where braces name them.

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
    """

    asked: str
    found: str
    unproved: str
    limits: tuple[str, ...]

    def fill(self, text: str, options: Options) -> str:
        """Put the options where a text names them."""
        return text.format_map(_Recorded(options))
