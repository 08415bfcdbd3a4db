# SPDX-License-Identifier: Apache-2.0
"""Keep a model from harmful answers, whatever it says instead.

Source: arXiv 2510.03567, away from the risk region (ARR).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from torch import nn

from cintervene import data
from cintervene.models.clock import Clock
from cintervene.models.intervention import Intervention
from cintervene.models.layer_descent import Drift, check_positive, descend, targets_of
from cintervene.models.lessons import prepare
from cintervene.models.risk_region import RiskRegion
from cintervene.models.safe_region import Part, TSROptions
from cintervene.models.spelling import encode_text
from cintervene.models.targets import find_decoder
from cintervene.models.unembedding import find_unembedding
from cintervene.progress import Progress, silent

__all__ = ["avoid_harm"]


def avoid_harm(
    model: nn.Module,
    tokenizer: Any,
    *,
    harmful: Sequence[str] | None = None,
    layers: Literal["auto"] | Iterable[int] = "auto",
    radius: float = 0.03,
    nats: float = 5.0,
    preserve: Iterable[str] = (),
    max_kl: float = 0.05,
    max_false_refusals: float = 0.05,
    options: TSROptions | None = None,
    progress: Progress = silent,
) -> Intervention:
    """Find a small change of some layers that makes harmful answers unlikely.

    The answers are the model's own to the harmful requests. What the model says in
    their place is left to it, so `teach_refusal` is what makes it say no.

    Parameters
    ----------
    model, tokenizer, harmful, layers, radius, preserve, max_kl, max_false_refusals, \
options, progress
        As in `teach_refusal`; `first_token` of the options is not used.
    nats : float
        Negative log probability asked for a token of such an answer, on average.

    Returns
    -------
    Intervention
        As that of `teach_refusal`; `refused` in the sweep is the share of requests
        whose answers reach half of `nats`, and steps have `worst`, the nats of the
        request that is least defended.

    Raises
    ------
    ArgumentError, ModelError
        As `teach_refusal`.
    """
    check_positive(
        radius=radius, nats=nats, max_kl=max_kl, max_false_refusals=max_false_refusals
    )
    details = options or TSROptions()
    if harmful is None:
        harmful = [prompt.text for prompt in data.harmful_prompts("train")]
    decoder = find_decoder(model)
    unembedding = find_unembedding(model, decoder)
    clock = Clock()
    with clock.phase("prompts"):
        lessons = prepare(
            model, tokenizer, harmful, None, list(preserve), details.answers,
            details.answer_tokens, progress,
        )  # fmt: skip
    with clock.phase("layer"):
        targets = targets_of(model, tokenizer, decoder, layers, progress)
    with clock.phase("capture"):
        place = (model, targets, decoder, unembedding)
        problem = RiskRegion(*place, lessons, radius, details, nats=nats)
        tune = Part(*place, lessons.tune_harmful, lessons.tune_benign)
    openings = sorted({encode_text(tokenizer, t)[0] for t in data.safe_refusals()})
    told = {
        "method": "arr",
        "harmful": len(harmful),
        "radius": radius,
        "nats": nats,
        "max_kl": max_kl,
        "max_false_refusals": max_false_refusals,
    }
    limits = Drift(max_kl, max_false_refusals)
    return descend(model, problem, tune, openings, limits, told, clock, progress)
