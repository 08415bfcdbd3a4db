# SPDX-License-Identifier: Apache-2.0
"""The parameters of TSR."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, ClassVar

from cintervene.errors import ArgumentError
from cintervene.methods.config import DescentConfig
from cintervene.utils.parameters import parameter
from cintervene.utils.ranges import Optional, Texts
from cintervene.utils.validation import check_texts

__all__ = ["Safe", "TSRConfig"]

# A refusal: as text, which is the whole answer, or as tokens with which one begins.
Safe = str | Sequence[int]


@dataclass(frozen=True)
class Refusals(Texts):
    """Refusals, as texts or as lists of token ids; which there are, a model tells."""

    def check(self, name: str, value: Any) -> tuple[Safe, ...]:
        """Return the refusals as a tuple of texts and tuples."""
        if isinstance(value, str) or not isinstance(value, Sequence) or not value:
            raise ArgumentError(
                f"{name}: got {value!r}; expected a list of texts or of lists of token "
                "ids"
            )
        return tuple(self._one(name, one) for one in value)

    def _one(self, name: str, one: Any) -> Safe:
        if isinstance(one, str):
            return check_texts(name, [one])[0]
        if not isinstance(one, Sequence) or not one:
            raise ArgumentError(
                f"{name}: got {one!r}; expected texts, or lists of token ids, none "
                "empty. Write [[5], [7, 2]] for answers that begin with 5, or 7 and 2"
            )
        if not all(isinstance(token, Integral) and int(token) >= 0 for token in one):
            raise ArgumentError(f"{name}: got {one!r}; expected token ids from 0 on")
        return tuple(map(int, one))

    def to_json(self, value: Any) -> Any:
        """The refusals as a list of texts and lists."""
        return [one if isinstance(one, str) else list(one) for one in value]


@dataclass(frozen=True, kw_only=True)
class TSRConfig(DescentConfig):
    """TSR: a small change of some layers after which a model refuses harmful requests.

    Attributes
    ----------
    safe : sequence of str or of sequence of int, optional
        Refusals that are all as good: at each token of one, the loss is the negative
        log probability of all tokens with which one of them goes on. A text is the
        whole answer, which ends there; of more than 16 tokens only the first 16 are
        taught. A list of token ids is how an answer begins, to go on as the model
        likes: ``[[5], [7, 2]]`` begins with token 5, or with 7 and 2. One of the
        package's own without it: a model that learns several at once mixes them. Best
        are those with whose first word the model begins no other answer.
    layers : "auto" or sequence of int
        `"auto"` takes five whose projections' inputs tell harmful requests of the
        tuning split best from others.

    The other parameters are those of `RequestConfig` and `DescentConfig`.

    References
    ----------
    arXiv 2510.03567, TSR; docs/methods/tsr.md.
    """

    method: ClassVar[str] = "tsr"

    safe: Sequence[Safe] | None = parameter(
        Optional(Refusals()), None,
        "a UTF-8 file with refusals that are all as good, one a line; one of the "
        "package's own without it",
        group="texts",
    )  # fmt: skip
