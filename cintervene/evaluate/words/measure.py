# SPDX-License-Identifier: Apache-2.0
"""Measuring what an intervention did to a model, and what it left alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn

from cintervene.data import Split, unique_words
from cintervene.errors import ArgumentError
from cintervene.evaluate.phases import Phases
from cintervene.evaluate.statistics.intervals import LEVEL, bootstrap_mean
from cintervene.evaluate.subject import subject
from cintervene.evaluate.words.changed_layers import changed_layers
from cintervene.evaluate.words.elicitation import elicited
from cintervene.evaluate.words.measurement import WordMeasurement
from cintervene.evaluate.words.obedience import obedience
from cintervene.evaluate.words.observation import RUNNING, Observation, observe
from cintervene.evaluate.words.records import Answer, Drift
from cintervene.evaluate.words.samples import Sample, gather
from cintervene.evaluate.words.scores import (
    group_perplexity,
    perplexity,
    running_text,
)
from cintervene.intervention.intervention import Intervention
from cintervene.models.precision import quick_products
from cintervene.prompts.evaluation_size import EvaluationSize
from cintervene.prompts.spelling import words_to_forbid
from cintervene.utils.progress import Progress, silent

__all__ = ["measure"]


@quick_products()
def measure(
    model: nn.Module,
    tokenizer: Any,
    intervention: Intervention,
    *,
    forbid: Sequence[str] | None = None,
    split: Split = "held_out",
    size: EvaluationSize | None = None,
    template_options: Mapping[str, Any] | None = None,
    progress: Progress = silent,
) -> WordMeasurement:
    """Measure a model without and with an intervention, on data not used to make it.

    Nothing is random: the same arguments give the same numbers. The intervention is
    applied for a while; afterwards, even after an error, the model is as it was.

    Parameters
    ----------
    model : nn.Module
        The base model.
    tokenizer
    intervention : Intervention
        One that fits the base and is not applied.
    forbid : sequence of str, optional
        The forbidden words; default: those that the intervention was made for.
    split : {"held_out", "fresh", "tune", "train"}, default "held_out"
        Of the package's templates, prompts and texts. "fresh" is for the last report
        alone: see docs/evaluation.md.
    template_options : mapping, optional
        What to give the chat template; default: what the intervention was made with,
        or else all modes that the template has, by turns.
    size : EvaluationSize, optional
        How much to measure on.
    progress : Progress, optional

    Returns
    -------
    WordMeasurement

    Raises
    ------
    ArgumentError
        There are no words, or the tokenizer cannot spell one.
    InterventionError
        The intervention does not fit the model, or is already applied.
    """
    model, chat = subject(model, tokenizer, intervention, template_options)
    words = words_to_forbid(chat, forbidden_words(forbid, intervention))
    size = size or EvaluationSize()
    phases = Phases(progress)
    sample = gather(chat, words, split, size)
    observed = observe(model, chat, intervention, sample, size, phases)
    groups = {
        kind: group_perplexity(
            spans, observed.scores[kind], sampled=kind != "forbidden"
        )
        for kind, spans in sample.word_spans.items()
        if spans
    }
    answers = _answers(sample, observed)
    benign_answers = [answer for answer in answers if not answer.forbidden]
    return WordMeasurement(
        model=intervention.model,
        split=split,
        level=LEVEL,
        words=words,
        forbidden=groups["forbidden"],
        benign=groups.get("benign"),
        related=groups.get("related"),
        obedience=obedience([answer for answer in answers if answer.forbidden]),
        benign_obedience=obedience(benign_answers) if benign_answers else None,
        drift=_drift(observed),
        layers=changed_layers(intervention),
        answers=answers,
        seconds=phases.seconds,
        elicited=elicited(sample.probes, observed.probed_before, observed.probed_after),
        running=(
            running_text(sample.running, observed.scores[RUNNING])
            if sample.running
            else None
        ),
    )


def forbidden_words(
    forbid: Sequence[str] | None, intervention: Intervention
) -> Sequence[str]:
    """Return the words given, or those of the intervention.

    Raises
    ------
    ArgumentError
        There are none.
    """
    recorded = unique_words(_recorded(intervention.options))
    words = recorded if forbid is None else forbid
    if not words:
        raise ArgumentError(
            "forbid: got no words, and the intervention does not say which it was made "
            "for; pass forbid=[...]"
        )
    return words


def _recorded(options: Mapping[str, Any]) -> list[str]:
    """Words in an intervention's options, and in those it was scaled or summed from."""
    sources = [options["from"]] if "from" in options else options.get("sum_of", [])
    words = list(options.get("forbid", []))
    return words + [word for source in sources for word in _recorded(source)]


def _answers(sample: Sample, observed: Observation) -> list[Answer]:
    return [
        Answer(request.word, request.forbidden, request.prompt, before, after)
        for request, before, after in zip(
            sample.requests, observed.before, observed.after, strict=True
        )
    ]


def _drift(observed: Observation) -> Drift:
    texts = observed.scores["texts"]
    return Drift(
        kl=bootstrap_mean(observed.kl, observed.kl_sizes),
        worst_kl=float(np.max(observed.kl / observed.kl_sizes)),
        kl_elsewhere=bootstrap_mean(observed.kl_elsewhere, observed.kl_elsewhere_sizes),
        said_tokens=int((observed.kl_sizes - observed.kl_elsewhere_sizes).sum()),
        prompts=len(observed.kl),
        tokens=int(observed.kl_sizes.sum()),
        texts=perplexity(texts.sizes, texts.before, texts.after),
        text_tokens=int(texts.sizes.sum()),
    )
