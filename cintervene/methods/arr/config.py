# SPDX-License-Identifier: Apache-2.0
"""The parameters of ARR."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from cintervene.errors import ArgumentError
from cintervene.methods.config import DescentConfig
from cintervene.utils.parameters import parameter
from cintervene.utils.ranges import Optional, Plain, Positive, Scale, Whole

if TYPE_CHECKING:
    from cintervene.methods.arr.adversary import PromptAttack

__all__ = ["ARRConfig"]


@dataclass(frozen=True)
class Attacks(Plain):
    """A `PromptAttack`; only its name and options are recorded."""

    def check(self, name: str, value: Any) -> Any:
        """Return the attack, or what was recorded of one, as it is."""
        if not (isinstance(value, Mapping) or hasattr(value, "suffixed")):
            raise ArgumentError(
                f"{name}: got {value!r}; expected an attack, e.g. "
                "attacks.RelaxedPGD(model, tokenizer)"
            )
        return value

    def to_json(self, value: Any) -> Any:
        """Name and options of the attack."""
        if isinstance(value, Mapping):
            return dict(value)
        return {"name": value.name, **value.options}


@dataclass(frozen=True, kw_only=True)
class ARRConfig(DescentConfig):
    """ARR: a small change of some layers that makes harmful answers unlikely.

    The answers are the model's own to the harmful requests. What the model says in
    their place is left to it, so `TSRConfig` is what makes it say no.

    Besides, it has the parameters of `RequestConfig` and `DescentConfig`;
    `first_token` is not used.

    Attributes
    ----------
    nats : float
        Negative log probability asked for a token of such an answer, on average.
    attack : PromptAttack, optional
        Looks for words behind the requests that bring the answers back, under the
        change as it is so far; what it finds is defended too. `attacks.RelaxedPGD` of
        the same model and tokenizer is one. A file records what it is, not the attack
        itself, which has to be given again to repeat a run.
    attack_every : int
        Steps from one attack to the next.
    attack_requests : int
        Requests that are attacked each time, the least defended ones of those that the
        step looks at.

    References
    ----------
    arXiv 2510.03567, ARR; docs/methods/arr.md.
    """

    method: ClassVar[str] = "arr"

    max_false_refusals: float = parameter(
        Positive(metavar="SHARE"), 0.05, "benign requests refused in addition",
        group="limits",
    )  # fmt: skip
    # The answers to leave are as long.
    answer_tokens: int = parameter(
        Whole(least=1), 20, "length of these answers, in tokens"
    )
    nats: float = parameter(
        Scale(metavar="NATS"), 5.0,
        "how unlikely a token of a harmful answer shall be",
    )  # fmt: skip
    attack: PromptAttack | None = parameter(
        Optional(Attacks()), None, "looks for words that bring answers back", flag=False
    )
    attack_every: int = parameter(
        Whole(least=1), 4, "steps from one attack to the next", flag=False
    )
    attack_requests: int = parameter(
        Whole(least=1), 4, "requests that are attacked each time", flag=False
    )
