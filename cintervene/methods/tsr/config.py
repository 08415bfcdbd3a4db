# SPDX-License-Identifier: Apache-2.0
"""The parameters of TSR."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from cintervene.methods.config import DescentConfig
from cintervene.prompts.refusals import Refusal, Refusals
from cintervene.utils.parameters import parameter
from cintervene.utils.ranges import Optional

__all__ = ["TSRConfig"]


@dataclass(frozen=True, kw_only=True)
class TSRConfig(DescentConfig):
    """TSR: a small change of some layers after which a model refuses harmful requests.

    Besides, it has the parameters of `RequestConfig` and `DescentConfig`.

    Attributes
    ----------
    safe : sequence of str or of sequence of int, optional
        Refusals that are all as good: at each token of one, the loss is the negative
        log probability of all tokens with which one of them goes on. A text is the
        whole answer, which ends there; of more than 16 tokens only the first 16 are
        learnt. A list of token ids is how an answer begins, to go on as the model
        likes: ``[[5], [7, 2]]`` begins with token 5, or with 7 and 2. One of the
        package's own without it: a model that learns several at once mixes them. Best
        are those with whose first word the model begins no other answer.
    layers : "auto" or sequence of int
        `"auto"` takes five whose projections' inputs tell harmful requests of the
        tuning split best from others.

    References
    ----------
    arXiv 2510.03567, TSR; docs/methods/tsr.md.
    """

    method: ClassVar[str] = "tsr"

    safe: Sequence[Refusal] | None = parameter(
        Optional(Refusals()), None,
        "a UTF-8 file with refusals that are all as good, one a line; one of the "
        "package's own without it",
        group="texts",
    )  # fmt: skip
