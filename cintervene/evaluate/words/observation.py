# SPDX-License-Identifier: Apache-2.0
"""Everything that the model itself has to be run for, before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cintervene.activations.layer_stream import LayerStream
from cintervene.activations.scoring import (
    divergence,
    token_nll,
)
from cintervene.evaluate.phases import Phases, Step
from cintervene.evaluate.words.samples import (
    EvaluationSize,
    Sample,
)
from cintervene.evaluate.words.scores import (
    Scores,
    item_sums,
    token_counts,
)
from cintervene.intervention.intervention import Intervention
from cintervene.models.parts import ModelParts
from cintervene.models.trace import evaluating
from cintervene.models.unembedding import Unembedding
from cintervene.prompts.chat import (
    generate,
    render,
)
from cintervene.prompts.target_spans import (
    TargetSpan,
    answered,
)
from cintervene.utils.arrays import Floats

__all__ = ["Observation", "observe"]

EVERYDAY = "everyday"
# Answers generated at a time: a step costs little more for many than for few.
BATCH = 96


@dataclass(frozen=True, eq=False)
class Observation:
    """What the model did, without and with the intervention.

    Attributes
    ----------
    scores : dict of str to Scores
        Of the sample's spoken words by kind, where there are any, and of "texts".
    kl : ndarray, shape (answers,)
        KL(base || changed), nats, summed over the tokens of each of the base's answers
        to everyday prompts.
    kl_sizes : ndarray, shape (answers,)
        Tokens of each answer.
    before, after : list of str
        Answers to the sample's requests.
    """

    scores: dict[str, Scores]
    kl: Floats
    kl_sizes: Floats
    before: list[str]
    after: list[str]


def observe(
    model: nn.Module,
    tokenizer: Any,
    intervention: Intervention,
    sample: Sample,
    budget: EvaluationSize,
    phases: Phases,
) -> Observation:
    """Run the model without and with the intervention.

    The layers below the first changed one run once for both; generation runs twice.
    """

    def answers(
        phase: str, prompts: Sequence[Sequence[int]], tokens: int
    ) -> list[list[int]]:
        with phases.phase(phase, len(prompts)) as step, evaluating(model):
            return generate(
                model, tokenizer, prompts, tokens, batch_size=BATCH, progress=step
            )

    def requested(phase: str) -> list[str]:
        replies = answers(phase, requests, budget.request_tokens)
        return [tokenizer.decode(one, skip_special_tokens=True) for one in replies]

    parts = ModelParts.find(model)
    requests = [render(tokenizer, request.prompt) for request in sample.requests]
    prompts = [render(tokenizer, prompt) for prompt in sample.prompts]
    replies = answers("everyday answers", prompts, budget.answer_tokens)
    groups = {
        **sample.spoken, "texts": sample.texts, EVERYDAY: answered(prompts, replies),
    }  # fmt: skip
    groups = {name: group for name, group in groups.items() if group}
    everything = [one for group in groups.values() for one in group]
    first = min(edit.layer for edit in intervention.edits.values())
    with phases.phase("layers below", len(everything)) as step:
        stream = LayerStream.of(parts.decoder, everything, first, entered=step)
    with phases.phase("scores before", 1) as step:
        base = stream.final()
        step(1)
    before = requested("answers before")
    with intervention.applied(model):
        with phases.phase("scores after", 1) as step:
            changed = stream.final()
            step(1)
        after = requested("answers after")
    with phases.phase("comparison", len(everything)) as step:
        scores, kl = _compare(parts.unembedding, groups, base, changed, step)
    sizes = token_counts(groups[EVERYDAY])
    return Observation(scores, item_sums(kl, sizes), sizes, before, after)


def _compare(
    unembedding: Unembedding,
    groups: Mapping[str, Sequence[TargetSpan]],
    base: Tensor,
    changed: Tensor,
    step: Step,
) -> tuple[dict[str, Scores], Floats]:
    """Scores of the groups, and the divergence at each token of everyday answers."""
    sizes = [sum(len(one.positions) for one in group) for group in groups.values()]
    scores, kl = {}, np.empty(0)
    parts = zip(torch.split(base, sizes), torch.split(changed, sizes), strict=True)
    for (name, group), (old, new) in zip(groups.items(), parts, strict=True):
        if name == EVERYDAY:
            kl = divergence(unembedding, old, new)
        else:
            tokens = torch.tensor([token for one in group for token in one.targets])
            before, after = (token_nll(unembedding, x, tokens) for x in (old, new))
            scores[name] = Scores(group, before, after)
        step(len(group))
    return scores, kl
