# SPDX-License-Identifier: Apache-2.0
"""What TSR and ARR learn from: requests to refuse or to leave, and others to answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from cintervene import data
from cintervene.methods.config import DescentConfig
from cintervene.prompts.refusal_examples import (
    ExampleBuilder,
    TargetExample,
    generate_answers,
)
from cintervene.prompts.refusals import Refusal, check_vocabulary
from cintervene.utils.progress import Progress

__all__ = ["RefusalExamples", "prepare"]

Groups = list[list[TargetExample]]
Answers = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class RefusalExamples:
    """Groups of examples about one request each, to fit to and to choose on.

    Attributes
    ----------
    harmful, benign : list of list of TargetExample
    tune_harmful, tune_benign : list of TargetExample
    """

    harmful: Groups
    benign: Groups
    tune_harmful: list[TargetExample]
    tune_benign: list[TargetExample]


@dataclass(frozen=True)
class _Requests:
    """Texts of one split: harmful, only sounding so, and everyday ones."""

    harmful: list[str]
    borderline: list[str]
    everyday: list[str]


def prepare(
    model: nn.Module,
    tokenizer: Any,
    config: DescentConfig,
    refusals: Sequence[Refusal] | None,
    progress: Progress,
) -> RefusalExamples:
    """Render all prompts; let the model answer everyday ones.

    Parameters
    ----------
    model : nn.Module
    tokenizer
    config : DescentConfig
    refusals : sequence of Refusal or None
        None makes examples of what is not to be said: the model's own answers to the
        harmful requests.
    progress : callable

    Raises
    ------
    ArgumentError
        A token of a refusal is none of the vocabulary's.
    """
    if refusals is not None:
        embedding: Any = model.get_input_embeddings()  # type: ignore[operator]
        check_vocabulary("safe", refusals, len(embedding.weight))
    train, tune = _train_requests(config), _tune_requests(config)
    templates = data.jailbreak_templates("train")
    samples = [*train.harmful, *train.everyday]
    builder = ExampleBuilder(tokenizer, samples, refusals or (), templates)
    texts = [*train.everyday, *tune.everyday]
    # Every second refusal interrupts the model's own answer; see `ExampleBuilder`.
    texts += train.harmful[1::2] if refusals else [*train.harmful, *tune.harmful]
    answers = generate_answers(model, tokenizer, texts, config.answer_tokens, progress)
    if refusals is None:
        harmful = [[builder.harmful_answer(t, answers[t])] for t in train.harmful]
        tune_harmful = [builder.harmful_answer(t, answers[t]) for t in tune.harmful]
    else:
        harmful = [
            list(builder.refusals(turn, text, answers.get(text, ())))
            for turn, text in enumerate(train.harmful)
        ]
        tune_harmful = [
            builder.refusal(text, "", turn) for turn, text in enumerate(tune.harmful)
        ]
    benign = _alternate(
        [list(builder.borderline(i, text)) for i, text in enumerate(train.borderline)],
        [[one] for one in _everyday(builder, train, answers)],
    )
    tune_benign = [builder.retain(text) for text in tune.borderline]
    tune_benign += _everyday(builder, tune, answers)
    return RefusalExamples(harmful, benign, tune_harmful, tune_benign)


def _train_requests(config: DescentConfig) -> _Requests:
    borderline = data.borderline_prompts("train")[: config.borderline]
    everyday = data.benign_prompts("train")[: config.answers]
    return _Requests(
        list(config.requests),
        [*(prompt.text for prompt in borderline), *config.preserve],
        [prompt.text for prompt in everyday],
    )


def _tune_requests(config: DescentConfig) -> _Requests:
    """The package's; of benign ones a quarter as many as there are to fit to."""
    borderline = data.borderline_prompts("tune")[: config.borderline // 4]
    everyday = data.benign_prompts("tune")[: max(config.answers // 4, 1)]
    return _Requests(
        [prompt.text for prompt in data.harmful_prompts("tune")],
        [prompt.text for prompt in borderline],
        [prompt.text for prompt in everyday],
    )


def _everyday(
    builder: ExampleBuilder, requests: _Requests, answers: Answers
) -> list[TargetExample]:
    """Everyday requests with the model's own answers, which are to stay."""
    return [builder.retain(t, answer=answers[t]) for t in requests.everyday]


def _alternate(one: Groups, other: Groups) -> Groups:
    """Both lists, spread evenly over each other."""
    placed = [
        ((index + 0.5) / len(part), group)
        for part in (one, other)
        for index, group in enumerate(part)
    ]
    return [group for _, group in sorted(placed, key=lambda place: place[0])]
