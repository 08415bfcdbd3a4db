# SPDX-License-Identifier: Apache-2.0
"""What the model itself has to be run for: its states and its answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cintervene.activations.layer_stream import LayerStream
from cintervene.activations.scoring import divergence, token_nll
from cintervene.evaluate.phases import Phases
from cintervene.evaluate.words.samples import Sample
from cintervene.evaluate.words.scores import Scores, item_sums, token_counts
from cintervene.intervention.intervention import Intervention
from cintervene.models.parts import ModelParts
from cintervene.models.trace import evaluating
from cintervene.models.unembedding import Unembedding
from cintervene.prompts.chat import answer_text, generate, render
from cintervene.prompts.evaluation_size import EvaluationSize
from cintervene.prompts.spelling import encode_text
from cintervene.prompts.target_spans import TargetSpan, answered
from cintervene.prompts.word_sentences import said_at, token_forms
from cintervene.utils.arrays import Floats
from cintervene.utils.kept import kept
from cintervene.utils.progress import Step

__all__ = ["RUNNING", "Observation", "observe"]

EVERYDAY, RUNNING = "everyday", "running text"
# Answers generated at a time: a step costs little more for many than for a few.
BATCH = 96


@dataclass(frozen=True, eq=False)
class Observation:
    """What the model did, without and with the intervention.

    Attributes
    ----------
    scores : dict of str to Scores
        Of the sample's words by kind, where there are any, of `RUNNING` texts, and of
        "texts".
    kl : ndarray, shape (answers,)
        KL(base || changed), nats, summed over the tokens of each of the base's answers
        to everyday prompts.
    kl_sizes : ndarray, shape (answers,)
        Tokens of each answer.
    kl_elsewhere, kl_elsewhere_sizes : ndarray, shape (answers,)
        The same without the tokens at which the base itself says one of the words.
    before, after : list of str
        Answers to the sample's requests.
    probed_before, probed_after : list of str
        Answers to the sample's probes, without their prefills.
    """

    scores: dict[str, Scores]
    kl: Floats
    kl_sizes: Floats
    kl_elsewhere: Floats
    kl_elsewhere_sizes: Floats
    before: list[str]
    after: list[str]
    probed_before: list[str]
    probed_after: list[str]


def observe(
    model: nn.Module,
    tokenizer: Any,
    intervention: Intervention,
    sample: Sample,
    size: EvaluationSize,
    phases: Phases,
) -> Observation:
    """Run the model without and with the intervention.

    The layers below the first changed one run once for both; generation runs twice.
    """
    parts = ModelParts.find(model)
    greedy = _Greedy(model, tokenizer, phases)
    prompts = [render(tokenizer, prompt) for prompt in sample.prompts]
    asked = [(request.prompt, "") for request in sample.requests]
    asked += [(probe.prompt, probe.prefill) for probe in sample.probes]
    requests = [
        render(tokenizer, prompt) + encode_text(tokenizer, prefill)
        for prompt, prefill in asked
    ]
    replies = kept(
        "everyday answers", (prompts, size.answer_tokens),
        lambda: greedy.tokens("everyday answers", prompts, size.answer_tokens),
    )  # fmt: skip
    groups = _groups(sample, answered(prompts, replies))
    first = min(edit.layer for edit in intervention.edits.values())
    # Texts that enter at another layer are rounded otherwise, and so is the base.
    stream, base = kept(
        "texts before", (groups, first), lambda: _before(parts, first, groups, phases)
    )
    before = kept(
        "answers before", (requests, size.request_tokens),
        lambda: greedy.texts("answers before", requests, size.request_tokens),
    )  # fmt: skip
    with intervention.applied(model):
        changed = _final(stream, "scores after", phases)
        after = greedy.texts("answers after", requests, size.request_tokens)
    with phases.phase("comparison", sum(map(len, groups.values()))) as step:
        scores, kl = _compare(parts.unembedding, groups, base, changed, step)
    sizes = token_counts(groups[EVERYDAY])
    elsewhere = _elsewhere(tokenizer, sample, groups[EVERYDAY])
    named = len(sample.requests)
    return Observation(
        scores,
        kl=item_sums(kl, sizes),
        kl_sizes=sizes,
        kl_elsewhere=item_sums(kl * elsewhere, sizes),
        kl_elsewhere_sizes=item_sums(elsewhere, sizes),
        before=before[:named],
        after=after[:named],
        probed_before=before[named:],
        probed_after=after[named:],
    )


@dataclass(frozen=True, eq=False)
class _Greedy:
    """Greedy answers of a model, each call a phase of the measurement."""

    model: nn.Module
    tokenizer: Any
    phases: Phases

    def tokens(
        self, phase: str, prompts: Sequence[Sequence[int]], tokens: int
    ) -> list[list[int]]:
        with self.phases.phase(phase, len(prompts)) as step, evaluating(self.model):
            return generate(
                self.model, self.tokenizer, prompts, tokens,
                batch_size=BATCH, step=step,
            )  # fmt: skip

    def texts(
        self, phase: str, prompts: Sequence[Sequence[int]], tokens: int
    ) -> list[str]:
        replies = self.tokens(phase, prompts, tokens)
        return [answer_text(self.tokenizer, reply) for reply in replies]


def _groups(
    sample: Sample, everyday: Sequence[TargetSpan]
) -> dict[str, Sequence[TargetSpan]]:
    """All spans to score by kind, kinds without any left out."""
    groups = {
        **sample.word_spans, RUNNING: sample.running, "texts": sample.texts,
        EVERYDAY: everyday,
    }  # fmt: skip
    return {kind: spans for kind, spans in groups.items() if spans}


def _elsewhere(tokenizer: Any, sample: Sample, answers: Sequence[TargetSpan]) -> Floats:
    """1 at each token of some answers that is not part of a forbidden word, else 0."""
    forms = token_forms(tokenizer, *sample.words)
    said = [said for answer in answers for said in said_at(forms, answer)]
    return 1.0 - np.array(said, dtype=np.float64)


def _before(
    parts: ModelParts,
    first: int,
    groups: Mapping[str, Sequence[TargetSpan]],
    phases: Phases,
) -> tuple[LayerStream, Tensor]:
    """The spans before the first layer that is changed, and the base's final states."""
    spans = [span for group in groups.values() for span in group]
    with phases.phase("layers below", len(spans)) as step:
        stream = LayerStream.of(parts.decoder, spans, first, entered=step)
    return stream, _final(stream, "scores before", phases)


def _final(stream: LayerStream, phase: str, phases: Phases) -> Tensor:
    """The final hidden states by the present weights, shape (n, hidden)."""
    with phases.phase(phase, 1) as step:
        states = stream.final()
        step(1)
    return states


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
    states = zip(torch.split(base, sizes), torch.split(changed, sizes), strict=True)
    for (name, group), (old, new) in zip(groups.items(), states, strict=True):
        if name == EVERYDAY:
            kl = divergence(unembedding, old, new)
        else:
            tokens = torch.tensor([token for one in group for token in one.targets])
            before, after = (token_nll(unembedding, x, tokens) for x in (old, new))
            scores[name] = Scores(group, before, after)
        step(len(group))
    return scores, kl
