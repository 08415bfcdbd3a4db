# SPDX-License-Identifier: Apache-2.0
"""Keep a model from harmful answers, whatever it says instead.

Source: arXiv 2510.03567, away from the risk region (ARR).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, Literal

from torch import nn

from cintervene.errors import ArgumentError
from cintervene.intervention.intervention import Intervention
from cintervene.methods.arr.adversary import (
    Adversary,
    PromptAttack,
)
from cintervene.methods.arr.problem import RiskRegion
from cintervene.methods.common.sweep import (
    RefusalLimits,
    requested,
)
from cintervene.methods.tsr.config import TSROptions
from cintervene.methods.tsr.fit import learn
from cintervene.utils.literals import Matrix
from cintervene.utils.progress import (
    Progress,
    silent,
)
from cintervene.utils.validation import (
    check_positive,
    check_whole,
)

__all__ = ["avoid_harm"]


def avoid_harm(
    model: nn.Module,
    tokenizer: Any,
    *,
    harmful: Sequence[str] | None = None,
    layers: Literal["auto"] | Iterable[int] = "auto",
    matrix: Matrix = "down_proj",
    radius: float = 0.03,
    nats: float = 5.0,
    preserve: Iterable[str] = (),
    max_kl: float = 0.05,
    max_false_refusals: float = 0.05,
    attack: PromptAttack | None = None,
    attack_every: int = 4,
    attack_requests: int = 4,
    options: TSROptions | None = None,
    progress: Progress = silent,
) -> Intervention:
    """Find a small change of some layers that makes harmful answers unlikely.

    The answers are the model's own to the harmful requests. What the model says in
    their place is left to it, so `teach_refusal` is what makes it say no.

    Parameters
    ----------
    model, tokenizer, harmful, layers, matrix, radius, preserve, max_kl, \
max_false_refusals, options, progress
        As in `teach_refusal`; `first_token` of the options is not used.
    nats : float
        Negative log probability asked for a token of such an answer, on average.
    attack : PromptAttack, optional
        Looks for words behind the requests that bring the answers back, under the
        change as it is so far; what it finds is defended too. `attacks.RelaxedPGD` of
        the same model and tokenizer is one.
    attack_every : int
        Steps from one attack to the next.
    attack_requests : int
        Requests that are attacked each time, the least defended ones of those that the
        step looks at.

    Returns
    -------
    Intervention
        As that of `teach_refusal`; `refused` in the sweep is the share of requests
        whose answers reach half of `nats`, and steps have `worst`, the nats of the
        request that is least defended.

    Raises
    ------
    ArgumentError, ModelError
        As `teach_refusal`, or the attack is on another model.
    """
    check_positive(
        radius=radius, nats=nats, max_kl=max_kl, max_false_refusals=max_false_refusals
    )
    check_whole(1, attack_every=attack_every, attack_requests=attack_requests)
    options = options or TSROptions()
    # The answers to leave are as long.
    check_whole(1, answer_tokens=options.answer_tokens)
    harmful = requested(harmful)
    told = {"method": "arr", "radius": radius, "matrix": matrix, "nats": nats}
    adversary = None
    if attack is not None:
        if getattr(attack, "model", model) is not model:
            raise ArgumentError("attack: is on another model; make one on this model")
        adversary = Adversary(attack, tokenizer, harmful, attack_every, attack_requests)
        told |= {
            "attack": {"name": attack.name, **attack.options},
            "attack_every": attack_every,
            "attack_requests": attack_requests,
        }
    return learn(
        model, tokenizer, partial(RiskRegion, nats=nats, adversary=adversary), harmful,
        None, layers, preserve, told, RefusalLimits(max_kl, max_false_refusals),
        options, progress,
    )  # fmt: skip
