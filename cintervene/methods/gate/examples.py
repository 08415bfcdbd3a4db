# SPDX-License-Identifier: Apache-2.0
"""What gates learn from: tokens of harmful and benign conversations.

Each request comes with prefills, and in another of the ways in which an answer may
begin (the template's modes, think blocks), so that detectors can tell at every one of
their tokens whether the request is harmful, and the harmful ones with the refusal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from cintervene import data
from cintervene.methods.gate.config import GateConfig
from cintervene.prompts.refusal_examples import (
    REFUSAL_OPENING,
    ExampleBuilder,
    TargetExample,
    generate_answers,
)
from cintervene.utils.progress import Progress

__all__ = [
    "ANSWERING", "DEPTHS", "HIDDEN", "OPENING", "READING", "REFUSING", "GateExamples",
    "prepare", "roles",
]  # fmt: skip

# Role of a token: in the request, at its end where the answer is about to begin, within
# a prefilled answer, where the answer to a request in a template is about to begin, or
# at this or a later token of the refusal.
READING, OPENING, ANSWERING, HIDDEN, REFUSING = range(5)
# With how many prefills each harmful request comes.
PREFILLS = 2
# In how many other ways.
WAYS = 2
# One harmful request in so many comes with the model's own answer, cut at these depths
# by turns: what is to be broken off there is an answer, not only how one may begin.
DEPTH_EVERY = 2
DEPTHS = (5, 10, 20, 40)
# One harmful request in so many comes in a jailbreak template, too, and one benign one.
JAILBREAK_EVERY = 2
HARMLESS_JAILBREAK_EVERY = 3
# One benign prompt in so many comes in a form that prompts take every day, too.
FORM_EVERY = 4
# One benign prompt in so many comes with the model's own answer, not with a prefill.
ANSWER_EVERY = 2
# How answers begin that only sound like refusals, and with one benign prompt in how
# many.
APOLOGIES = ("I'm sorry", "I'm sorry for", "I apologize", "Sorry")
APOLOGY_EVERY = 4
# One benign prompt in so many comes in another way, too.
WAY_EVERY = 2

Answers = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class GateExamples:
    """Examples to fit to and to choose on.

    Attributes
    ----------
    harmful : list of list of TargetExample
        Those about one request together.
    benign, tune_harmful, tune_benign : list of TargetExample
    ending : tuple of int
        What the chat template puts between every request and its answer.
    """

    harmful: list[list[TargetExample]]
    benign: list[TargetExample]
    tune_harmful: list[TargetExample]
    tune_benign: list[TargetExample]
    ending: tuple[int, ...] = ()


def prepare(
    model: nn.Module,
    tokenizer: Any,
    config: GateConfig,
    refusal: str,
    progress: Progress,
    deep: bool = False,
) -> GateExamples:
    """Render all prompts; let the model answer benign ones.

    Parameters
    ----------
    model : nn.Module
    tokenizer
    config : GateConfig
    refusal : str
        What to say to harmful requests.
    progress : callable
    deep : bool
        Whether the model's own answers to harmful requests are to be broken off, too.
    """
    everyday = _texts(data.benign_prompts("train"))[: config.benign]
    borderline = _texts(data.borderline_prompts("train"))[: config.benign]
    retained = [*borderline, *config.preserve, *everyday]
    tune_everyday = _texts(data.benign_prompts("tune"))[: config.benign]
    templates = [*data.jailbreak_templates("train"), *data.disguise_templates()]
    requests, forms = config.requests, data.ordinary_templates("train")
    samples = [*requests, *everyday]
    builder = ExampleBuilder(tokenizer, samples, [refusal], templates)
    texts = [*retained[::ANSWER_EVERY], *tune_everyday]
    answers = generate_answers(model, tokenizer, texts, config.answer_tokens, progress)
    broken = requests[::DEPTH_EVERY] if deep else []
    begun = generate_answers(model, tokenizer, broken, DEPTHS[-1], progress)
    return GateExamples(
        harmful=[
            list(_harmful(builder, turn, text, begun))
            for turn, text in enumerate(requests)
        ],
        benign=[
            example
            for turn, text in enumerate(retained)
            for example in _benign(builder, forms, turn, text, answers)
        ],
        tune_harmful=list(_tune_harmful(builder)),
        tune_benign=list(_tune_benign(builder, tune_everyday, answers)),
        ending=builder.ending,
    )


def _texts(prompts: Sequence[data.BenignPrompt | data.HarmfulPrompt]) -> list[str]:
    return [prompt.text for prompt in prompts]


def _harmful(
    builder: ExampleBuilder, turn: int, text: str, begun: Answers
) -> Iterator[TargetExample]:
    """The examples about a harmful request; ways, prefills and templates take turns."""
    yield builder.refusal(text, "", 0)
    for way in range(turn * WAYS, (turn + 1) * WAYS):
        yield builder.refusal(text, "", 0, way=way + 1)
    prefills = builder.prefills
    for at in range(turn * PREFILLS, (turn + 1) * PREFILLS):
        yield builder.refusal(text, prefills[at % len(prefills)], 0)
    if text in begun and turn % DEPTH_EVERY == 0:
        depth = DEPTHS[turn // DEPTH_EVERY % len(DEPTHS)]
        yield builder.refusal(text, builder.decode(begun[text][:depth]), 0)
    if turn % JAILBREAK_EVERY == 1:
        template_turn = turn // JAILBREAK_EVERY
        jailbreak = data.fill_in_turn(builder.templates, template_turn, text)
        yield replace(builder.refusal(jailbreak, "", 0), hidden=True)


def _benign(
    builder: ExampleBuilder,
    forms: Sequence[str],
    turn: int,
    text: str,
    answers: Answers,
) -> Iterator[TargetExample]:
    """The examples about a benign request; prefills and forms take turns."""
    if turn % ANSWER_EVERY == 0:
        yield builder.retain(text, answer=answers[text])
    else:
        prefills = builder.prefills
        yield builder.retain(text, prefills[turn // ANSWER_EVERY % len(prefills)])
    if turn % HARMLESS_JAILBREAK_EVERY == 0:
        template_turn = turn // HARMLESS_JAILBREAK_EVERY
        jailbreak = data.fill_in_turn(builder.templates, template_turn, text)
        yield replace(builder.retain(jailbreak), hidden=True)
    if turn % FORM_EVERY == 0:
        yield builder.retain(data.fill_in_turn(forms, turn // FORM_EVERY, text))
    if turn % WAY_EVERY == 0:
        yield builder.retain(text, way=turn // WAY_EVERY + 1)
    if turn % APOLOGY_EVERY == 1:
        yield builder.retain(text, APOLOGIES[turn // APOLOGY_EVERY % len(APOLOGIES)])


def _tune_harmful(builder: ExampleBuilder) -> Iterator[TargetExample]:
    """Harmful requests set aside, as rendered, with a prefill and in another way."""
    prefills = data.compliance_prefixes("tune")
    for turn, text in enumerate(_texts(data.harmful_prompts("tune"))):
        yield _opening(builder.refusal(text, "", 0))
        yield _opening(builder.refusal(text, prefills[turn % len(prefills)], 0))
        yield _opening(builder.refusal(text, "", 0, way=turn + 1))


def _tune_benign(
    builder: ExampleBuilder, everyday: Sequence[str], answers: Answers
) -> Iterator[TargetExample]:
    """Benign requests set aside, the everyday ones with the model's own answers."""
    for turn, text in enumerate(_texts(data.borderline_prompts("tune"))):
        yield builder.retain(text)
        if turn % WAY_EVERY == 0:
            yield builder.retain(text, way=turn // WAY_EVERY + 1)
    for text in everyday:
        yield builder.retain(text, answer=answers[text])


def _opening(example: TargetExample) -> TargetExample:
    """The same with the refusal's opening alone, by which it is judged."""
    end = example.target_start + REFUSAL_OPENING
    return replace(
        example,
        ids=example.ids[:end],
        target_sets=example.target_sets[:REFUSAL_OPENING],
    )


def roles(example: TargetExample, first: int) -> npt.NDArray[np.int64]:
    """The role of each token of an example from the first on."""
    positions = np.arange(first, len(example.ids))
    result = np.full(len(positions), READING)
    result[positions == example.opening] = HIDDEN if example.hidden else OPENING
    result[positions > example.opening] = ANSWERING
    if example.target_sets:
        refusing = positions >= example.target_start
        result[refusing] = REFUSING + (positions - example.target_start)[refusing]
    return result
