# SPDX-License-Identifier: Apache-2.0
"""How a model answers requests, harmful and harmless, before and after a change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from torch import nn

from cintervene import data
from cintervene.activations.layer_stream import LayerStream
from cintervene.activations.scoring import divergence
from cintervene.data import BenignPrompt, HarmfulPrompt, LanguageRequest, Split
from cintervene.evaluate.phases import Phases
from cintervene.evaluate.requests.depth import DepthPoint, begin_answers, depth_curve
from cintervene.evaluate.requests.fluency import answer_perplexities
from cintervene.evaluate.requests.outcomes import (
    Outcome,
    Paired,
    compare_outcomes,
    outcomes,
)
from cintervene.evaluate.statistics.intervals import LEVEL, Estimate, bootstrap_mean
from cintervene.evaluate.statistics.paired import Change, rate_change
from cintervene.evaluate.subject import Record, subject
from cintervene.evaluate.words.scores import item_sums, token_counts
from cintervene.intervention.intervention import Intervention
from cintervene.judges.turning import helps_later
from cintervene.models.parts import ModelParts
from cintervene.models.precision import quick_products
from cintervene.models.trace import evaluating
from cintervene.prompts.chat import answer_text, generate, render
from cintervene.prompts.target_spans import TargetSpan, answered
from cintervene.prompts.template import ChatTokenizer
from cintervene.utils.progress import Progress, silent
from cintervene.utils.validation import check_whole

__all__ = ["RequestMeasurement", "RequestOutcomes", "measure_requests"]

HARMFUL, EVERYDAY, FOREIGN = "harmful", "everyday", "harmful, ten languages"


@dataclass(frozen=True, slots=True)
class RequestOutcomes:
    """Outcomes of the greedy answers to requests of one kind.

    Attributes
    ----------
    kind : str
    requests : int
    refused, broken : Paired
        The other answers comply.
    turned : Change or None
        Of harmful requests: answers that begin as a refusal and then have the form of
        help (`judges.turning`); they are among the refused ones.
    """

    kind: str
    requests: int
    refused: Paired
    broken: Paired
    turned: Change | None = None


@dataclass(frozen=True)
class RequestMeasurement(Record):
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
        Harmful requests, those that only sound harmful, everyday prompts, and harmful
        and harmless ones in other languages.
    kl : Estimate
        KL(base || changed), nats per token, over the base's answers to everyday
        prompts.
    kl_prompts, kl_tokens : int
        Answers it was measured on, and tokens in them.
    seconds : dict of str to float
        By phase of this measurement.
    by_mode : dict of str to list of RequestOutcomes
        `asked` in each mode of the chat template, where it has several; `asked` is over
        all of them together.
    depth_before, depth_after : list of DepthPoint
        What becomes of answers to harmful requests that were begun; empty unless asked
        for. In the first mode.
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
    by_mode: dict[str, list[RequestOutcomes]] = field(default_factory=dict)
    depth_before: list[DepthPoint] = field(default_factory=list)
    depth_after: list[DepthPoint] = field(default_factory=list)

    def _repr_html_(self) -> str:
        """What notebooks show; reports are a floor above, loaded when asked for."""
        report = import_module("cintervene.evaluate.report.notebook")
        return str(report.requests_html(self))


@quick_products()
def measure_requests(
    model: nn.Module,
    tokenizer: Any,
    intervention: Intervention,
    *,
    limit: int = 60,
    tokens: int = 128,
    depths: Sequence[int] = (),
    split: Split = "held_out",
    template_options: Mapping[str, Any] | None = None,
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
    tokens : int, default 128
        Largest length of the answers. Short ones hide refusals that turn into help.
    depths : sequence of int, optional
        At which answers that were begun are looked at too (`depth.depth_curve`).
    split : {"held_out", "fresh", "tune", "train"}, default "held_out"
        Of the package's requests. "fresh" is for the last report alone: see
        docs/evaluation.md. There are other languages in it and in "held_out".
    template_options : mapping, optional
        What to give the chat template; default: what the intervention was made with,
        or else each of the modes that the template has, one after another.
    progress : Progress, optional

    Raises
    ------
    ArgumentError
        `limit` or `tokens` is not positive.
    InterventionError
        The intervention does not fit the model, or is already applied.
    """
    check_whole(1, limit=limit, tokens=tokens)
    model, chat = subject(model, tokenizer, intervention, template_options)
    parts = ModelParts.find(model)
    phases = Phases(progress)
    modes = chat.each_mode()
    sample = _Sample.of(modes, split, limit)
    rendered = sample.rendered
    before = _answers(model, tokenizer, rendered, tokens, "answers before", phases)
    everyday = sample.places(EVERYDAY)
    spans = answered([rendered[i] for i in everyday], [before[i] for i in everyday])
    with phases.phase("drift", len(spans)) as step:
        kl = _drift(parts, intervention, spans)
        step(len(spans))
    with intervention.applied(model):
        after = _answers(model, tokenizer, rendered, tokens, "answers after", phases)
    with phases.phase("outcomes", 2) as step:
        judged = []
        for replies in (before, after):
            judged.append(_judged(parts, tokenizer, sample, replies))
            step(1)
    curves = _depths(model, next(iter(modes.values())), intervention, sample, depths,
                     tokens, progress)  # fmt: skip
    sizes = token_counts(spans)
    return RequestMeasurement(
        model=intervention.model,
        split=split,
        level=LEVEL,
        tokens=tokens,
        asked=sample.by_kind(judged[0], judged[1]),
        kl=bootstrap_mean(item_sums(kl, sizes), sizes),
        kl_prompts=len(spans),
        kl_tokens=int(sizes.sum()),
        seconds=phases.seconds,
        by_mode=sample.by_mode(judged[0], judged[1]),
        depth_before=curves[0],
        depth_after=curves[1],
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


@dataclass(frozen=True)
class _Judged:
    """Outcomes of answers, and which of them refuse and then help, shape (n,)."""

    outcomes: list[Outcome]
    turned: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class _Sample:
    """Requests of each kind in each mode.

    Attributes
    ----------
    asked : list of (kind, mode, prompt)
    rendered : list of list of int
        Their tokens.
    """

    asked: list[tuple[str, str, str]]
    rendered: list[list[int]]

    @classmethod
    def of(cls, modes: dict[str, ChatTokenizer], split: Split, limit: int) -> Self:
        """The first requests of each kind: in these lists categories take turns."""
        kinds: dict[str, Sequence[HarmfulPrompt | BenignPrompt | LanguageRequest]] = {
            HARMFUL: data.harmful_prompts(split),
            "only sounding harmful": data.borderline_prompts(split),
            EVERYDAY: data.benign_prompts(split),
        }
        if split in ("held_out", "fresh"):
            for kind, bad in ((FOREIGN, True), ("harmless, ten languages", False)):
                kinds[kind] = data.language_requests(split, harmful=bad)
        asked = [
            (kind, mode, one.text)
            for kind, group in kinds.items()
            for mode in modes
            for one in group[:limit]
        ]
        return cls(asked, [render(modes[mode], text) for _, mode, text in asked])

    def places(self, kind: str, mode: str | None = None) -> list[int]:
        """Where the requests of a kind are, of all modes or of one."""
        return [
            at
            for at, (one, other, _) in enumerate(self.asked)
            if one == kind and mode in (None, other)
        ]

    def by_kind(
        self, before: _Judged, after: _Judged, mode: str | None = None
    ) -> list[RequestOutcomes]:
        """Outcomes of each kind."""
        results = []
        for kind in dict.fromkeys(kind for kind, _, _ in self.asked):
            part = self.places(kind, mode)
            refused, broken = (
                compare_outcomes(
                    [before.outcomes[i] for i in part],
                    [after.outcomes[i] for i in part],
                    outcome,
                )
                for outcome in (Outcome.REFUSED, Outcome.BROKEN)
            )
            harmful = kind in (HARMFUL, FOREIGN)
            turned = (
                rate_change(before.turned[part], after.turned[part])
                if harmful
                else None
            )
            results.append(RequestOutcomes(kind, len(part), refused, broken, turned))
        return results

    def by_mode(
        self, before: _Judged, after: _Judged
    ) -> dict[str, list[RequestOutcomes]]:
        """The same in each mode, if there are several."""
        modes = dict.fromkeys(mode for _, mode, _ in self.asked)
        if len(modes) < 2:
            return {}
        return {mode: self.by_kind(before, after, mode) for mode in modes}


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


def _depths(
    model: nn.Module,
    chat: ChatTokenizer,
    intervention: Intervention,
    sample: _Sample,
    depths: Sequence[int],
    tokens: int,
    progress: Progress,
) -> tuple[list[DepthPoint], list[DepthPoint]]:
    """What becomes of begun answers, without and with the intervention."""
    if not depths:
        return [], []
    requests = list(dict.fromkeys(sample.asked[i][2] for i in sample.places(HARMFUL)))
    begun = begin_answers(
        model, chat, requests, tokens=max(depths) + 1, progress=progress
    )
    curve = partial(
        depth_curve, model, chat, begun, depths=depths, tokens=tokens, progress=progress
    )
    before = curve()
    with intervention.applied(model):
        return before, curve()


def _judged(
    parts: ModelParts, tokenizer: Any, sample: _Sample, replies: list[list[int]]
) -> _Judged:
    """Outcomes of answers; their perplexity under the base tells broken ones."""
    texts = [answer_text(tokenizer, one) for one in replies]
    fluency = answer_perplexities(parts, tokenizer, sample.rendered, texts)
    prompts = [prompt for _, _, prompt in sample.asked]
    found = outcomes(texts, prompts=prompts, perplexities=fluency)
    turned = [helps_later(text) for text in texts]
    return _Judged(found, np.array(turned, dtype=bool))
