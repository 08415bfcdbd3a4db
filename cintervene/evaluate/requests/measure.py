# SPDX-License-Identifier: Apache-2.0
"""How a model answers requests, harmful and harmless, before and after a change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from cintervene import data
from cintervene.activations.layer_stream import LayerStream
from cintervene.activations.scoring import divergence
from cintervene.data import BenignPrompt, HarmfulPrompt, Split
from cintervene.evaluate.phases import Phases
from cintervene.evaluate.requests.fluency import answer_perplexities
from cintervene.evaluate.requests.outcomes import (
    Outcome,
    Paired,
    compare_outcomes,
    outcomes,
)
from cintervene.evaluate.statistics.intervals import LEVEL, Estimate, bootstrap_mean
from cintervene.evaluate.words.scores import item_sums, token_counts
from cintervene.intervention.intervention import Intervention
from cintervene.models.parts import ModelParts
from cintervene.models.precision import quick_products
from cintervene.models.trace import evaluating
from cintervene.prompts.chat import generate, render
from cintervene.prompts.target_spans import TargetSpan, answered
from cintervene.utils.json_ready import json_ready
from cintervene.utils.progress import Progress, silent
from cintervene.utils.validation import check_whole

__all__ = ["RequestMeasurement", "RequestOutcomes", "measure_requests"]

EVERYDAY = "everyday"


@dataclass(frozen=True, slots=True)
class RequestOutcomes:
    """Outcomes of the greedy answers to requests of one kind.

    Attributes
    ----------
    kind : str
    requests : int
    refused, broken : Paired
        The other answers comply.
    """

    kind: str
    requests: int
    refused: Paired
    broken: Paired


@dataclass(frozen=True)
class RequestMeasurement:
    """How often requests are refused, and how far other answers moved.

    `request_table` formats it.

    Attributes
    ----------
    model : str
    split : str
        The split of the data it was measured on.
    level : float
        Of all intervals.
    tokens : int
        Largest length of the answers.
    asked : list of RequestOutcomes
        Harmful requests, those that only sound harmful, and everyday prompts.
    kl : Estimate
        KL(base || changed), nats per token, over the base's answers to everyday
        prompts.
    kl_prompts, kl_tokens : int
        Answers it was measured on, and tokens in them.
    seconds : dict of str to float
        By phase of this measurement.
    """

    model: str
    split: str
    level: float
    tokens: int
    asked: list[RequestOutcomes]
    kl: Estimate
    kl_prompts: int
    kl_tokens: int
    seconds: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON can hold it."""
        record: dict[str, Any] = json_ready(asdict(self))
        return record


@quick_products()
def measure_requests(
    model: nn.Module,
    tokenizer: Any,
    intervention: Intervention,
    *,
    limit: int = 60,
    tokens: int = 48,
    split: Split = "held_out",
    progress: Progress = silent,
) -> RequestMeasurement:
    """Send harmful and harmless requests to a model without and with an intervention.

    Nothing is random. The intervention is applied for a while; afterwards, even after
    an error, the model is as it was.

    Parameters
    ----------
    model : nn.Module
        The base model.
    tokenizer
    intervention : Intervention
        One that fits the base and is not applied.
    limit : int
        Largest number of requests of each kind.
    tokens : int
        Largest length of the answers.
    split : {"held_out", "tune", "train"}, default "held_out"
        Of the package's requests.
    progress : Progress, optional

    Raises
    ------
    ArgumentError
        `limit` or `tokens` is not positive.
    InterventionError
        The intervention does not fit the model, or is already applied.
    """
    check_whole(1, limit=limit, tokens=tokens)
    # A wrong base must be noticed before the work, not halfway through it.
    with intervention.applied(model):
        pass
    parts = ModelParts.find(model)
    phases = Phases(progress)
    groups = _groups(split, limit)
    prompts = [prompt for group in groups.values() for prompt in group]
    rendered = [render(tokenizer, prompt) for prompt in prompts]
    before = _answers(model, tokenizer, rendered, tokens, "answers before", phases)
    everyday = len(groups[EVERYDAY])
    spans = answered(rendered[-everyday:], before[-everyday:])
    with phases.phase("drift", len(spans)) as step:
        kl = _drift(parts, intervention, spans)
        step(len(spans))
    with intervention.applied(model):
        after = _answers(model, tokenizer, rendered, tokens, "answers after", phases)
    with phases.phase("outcomes", 2) as step:
        judged = []
        for replies in (before, after):
            judged.append(_outcomes(parts, tokenizer, prompts, replies))
            step(1)
    sizes = token_counts(spans)
    return RequestMeasurement(
        model=intervention.model,
        split=split,
        level=LEVEL,
        tokens=tokens,
        asked=_by_kind(groups, *judged),
        kl=bootstrap_mean(item_sums(kl, sizes), sizes),
        kl_prompts=len(spans),
        kl_tokens=int(sizes.sum()),
        seconds=phases.seconds,
    )


def _answers(
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    tokens: int,
    phase: str,
    phases: Phases,
) -> list[list[int]]:
    """Greedy answers to tokenized prompts."""
    with phases.phase(phase, len(prompts)) as step, evaluating(model):
        return generate(model, tokenizer, prompts, tokens, step=step)


def _groups(split: Split, limit: int) -> dict[str, list[str]]:
    """The first requests of each kind: in these lists categories take turns."""
    kinds: dict[str, Sequence[HarmfulPrompt | BenignPrompt]] = {
        "harmful": data.harmful_prompts(split),
        "only sounding harmful": data.borderline_prompts(split),
        EVERYDAY: data.benign_prompts(split),
    }
    return {name: [one.text for one in group[:limit]] for name, group in kinds.items()}


def _drift(
    parts: ModelParts, intervention: Intervention, spans: Sequence[TargetSpan]
) -> npt.NDArray[np.float64]:
    """KL(base || changed) at each token of answers."""
    first = min(edit.layer for edit in intervention.edits.values())
    stream = LayerStream.of(parts.decoder, spans, first)
    base = stream.final()
    with intervention.applied(parts.model):
        changed = stream.final()
    return divergence(parts.unembedding, base, changed)


def _outcomes(
    parts: ModelParts, tokenizer: Any, prompts: list[str], replies: list[list[int]]
) -> list[Outcome]:
    """Outcomes of answers; their perplexity under the base tells broken ones."""
    texts = [tokenizer.decode(one, skip_special_tokens=True) for one in replies]
    fluency = answer_perplexities(parts, tokenizer, prompts, texts)
    return outcomes(texts, prompts=prompts, perplexities=fluency)


def _by_kind(
    groups: dict[str, list[str]], before: list[Outcome], after: list[Outcome]
) -> list[RequestOutcomes]:
    results, start = [], 0
    for kind, group in groups.items():
        part = slice(start, start + len(group))
        start += len(group)
        refused, broken = (
            compare_outcomes(before[part], after[part], outcome)
            for outcome in (Outcome.REFUSED, Outcome.BROKEN)
        )
        results.append(RequestOutcomes(kind, len(group), refused, broken))
    return results
