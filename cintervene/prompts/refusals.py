# SPDX-License-Identifier: Apache-2.0
"""Refusals that a model is to learn, as parameters have them; without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

from cintervene.errors import ArgumentError
from cintervene.utils.ranges import Texts
from cintervene.utils.validation import check_texts

__all__ = ["Refusal", "Refusals", "check_vocabulary"]

# As text, which is the whole answer, or as tokens with which an answer begins.
Refusal = str | Sequence[int]


@dataclass(frozen=True)
class Refusals(Texts):
    """Refusals, as texts or as lists of token ids; which there are, a model tells."""

    def check(self, name: str, value: Any) -> tuple[Refusal, ...]:
        """Return the refusals as a tuple of texts and tuples."""
        if isinstance(value, str) or not isinstance(value, Sequence) or not value:
            raise ArgumentError(
                f"{name}: got {value!r}; expected a list of texts or of lists of token "
                'ids, e.g. ["No."]'
            )
        return tuple(_check_one(name, one) for one in value)

    def to_json(self, value: Any) -> Any:
        """The refusals as a list of texts and lists."""
        return [one if isinstance(one, str) else list(one) for one in value]


def _check_one(name: str, refusal: Any) -> Refusal:
    if isinstance(refusal, str):
        return check_texts(name, [refusal])[0]
    if not isinstance(refusal, Sequence) or not refusal:
        raise ArgumentError(
            f"{name}: got {refusal!r}; expected texts, or lists of token ids, none "
            "empty. Write [[5], [7, 2]] for answers that begin with 5, or 7 and 2"
        )
    if not all(isinstance(token, Integral) and int(token) >= 0 for token in refusal):
        raise ArgumentError(f"{name}: got {refusal!r}; expected token ids from 0 on")
    return tuple(map(int, refusal))


def check_vocabulary(name: str, refusals: Sequence[Refusal], size: int) -> None:
    """Refuse token ids that a vocabulary does not have.

    Parameters
    ----------
    name : str
        Of the parameter, for the message.
    refusals : sequence of Refusal
    size : int
        How many tokens there are.

    Raises
    ------
    ArgumentError
        A refusal has other tokens.
    """
    for refusal in refusals:
        if not isinstance(refusal, str) and any(token >= size for token in refusal):
            raise ArgumentError(
                f"{name}: got {list(refusal)!r}; expected token ids from 0 to "
                f"{size - 1}, those of the model's vocabulary"
            )
