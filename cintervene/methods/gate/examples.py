# SPDX-License-Identifier: Apache-2.0
"""What detectors are fitted to: tokens of harmful and benign conversations.

Each request comes with beginnings of an answer, so that it can be told at every one of
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
from cintervene.prompts.refusal_examples import (
    REFUSAL_OPENING,
    ExampleBuilder,
    TargetExample,
    answered,
    check_given,
    check_spared,
)
from cintervene.utils.progress import Progress

__all__ = [
    "ANSWERING", "OPENING", "READING", "REFUSING", "GateExamples", "prepare", "roles"
]  # fmt: skip

# Where a token stands: in the request, at its end, in an answer that was begun, or at
# this or a later token of the refusal.
READING, OPENING, ANSWERING, REFUSING = range(4)
# With how many beginnings of an answer each harmful request comes.
BEGINNINGS = 2
# One request in so many comes in a prompt that talks the model into complying, too.
TALKED = 2
# One benign prompt in so many comes in a form that prompts take every day.
FORMED = 4
# One benign prompt in so many comes with the model's own answer, not one begun for it.
OWN = 2
# How answers begin that only sound like refusals, with one benign prompt in so many.
APOLOGIES, APOLOGISED = ("I'm sorry", "I'm sorry for", "I apologize", "Sorry"), 4


@dataclass(frozen=True)
class GateExamples:
    """Lessons to fit to and to choose on.

    Attributes
    ----------
    harmful : list of list of TargetExample
        Those about one request together.
    benign, tune_harmful, tune_benign : list of TargetExample
    """

    harmful: list[list[TargetExample]]
    benign: list[TargetExample]
    tune_harmful: list[TargetExample]
    tune_benign: list[TargetExample]


def prepare(
    model: nn.Module,
    tokenizer: Any,
    harmful: Sequence[str],
    refusal: str,
    preserve: Sequence[str],
    benign: int,
    answer_tokens: int,
    progress: Progress,
) -> GateExamples:
    """Render all prompts; let the model answer benign ones.

    Parameters
    ----------
    harmful : sequence of str
        Requests to refuse.
    refusal : str
    preserve : sequence of str
        Prompts to answer as before, besides the package's own.
    benign : int
        The package's everyday prompts, and as many that only sound harmful.
    answer_tokens : int
        Length of the answers.
    progress : callable

    Raises
    ------
    ArgumentError
        There is nothing to refuse, no refusal, or nothing to answer.
    """
    check_given(harmful, "harmful")
    check_given([refusal], "refusal")
    plain = [prompt.text for prompt in data.benign_prompts("train")][:benign]
    later = [prompt.text for prompt in data.benign_prompts("tune")][:benign]
    templates = [*data.jailbreak_templates("train"), *data.disguise_templates()]
    builder = ExampleBuilder(tokenizer, [*harmful, *plain], [refusal], templates)
    sounding = [prompt.text for prompt in data.borderline_prompts("train")][:benign]
    spared = [*sounding, *preserve, *plain]
    check_spared(spared, "benign")
    texts = [*spared[::OWN], *later]
    answer = answered(model, tokenizer, builder, texts, answer_tokens, progress)
    forms = data.ordinary_templates("train")
    beginnings = data.compliance_prefixes("tune")
    borderline = [prompt.text for prompt in data.borderline_prompts("tune")]
    tuned = [prompt.text for prompt in data.harmful_prompts("tune")]
    return GateExamples(
        harmful=[
            list(_refused(builder, turn, text)) for turn, text in enumerate(harmful)
        ],
        benign=[
            example
            for turn, text in enumerate(spared)
            for example in _kept(builder, forms, turn, text, answer)
        ],
        tune_harmful=[
            _opened(builder.refusal(text, begun, 0))
            for turn, text in enumerate(tuned)
            for begun in ("", beginnings[turn % len(beginnings)])
        ],
        tune_benign=[builder.keep(text) for text in borderline]
        + [builder.keep(text, answer=answer[text]) for text in later],
    )


def _refused(builder: ExampleBuilder, turn: int, text: str) -> Iterator[TargetExample]:
    yield builder.refusal(text, "", 0)
    beginnings = builder.beginnings
    for at in range(turn * BEGINNINGS, (turn + 1) * BEGINNINGS):
        yield builder.refusal(text, beginnings[at % len(beginnings)], 0)
    if turn % TALKED == 1:
        talked = data.fill_in_turn(builder.templates, turn // TALKED, text)
        yield builder.refusal(talked, "", 0)


def _kept(
    builder: ExampleBuilder,
    forms: Sequence[str],
    turn: int,
    text: str,
    answer: Mapping[str, Sequence[int]],
) -> Iterator[TargetExample]:
    if turn % OWN == 0:
        yield builder.keep(text, answer=answer[text])
    else:
        begun = builder.beginnings[turn // OWN % len(builder.beginnings)]
        yield builder.keep(text, begun)
    # Of `builder.templates` only those that are such forms, too: who uses the others
    # has something to hide.
    if turn % FORMED == 0:
        yield builder.keep(data.fill_in_turn(forms, turn // FORMED, text))
    if turn % APOLOGISED == 1:
        yield builder.keep(text, APOLOGIES[turn // APOLOGISED % len(APOLOGIES)])


def _opened(example: TargetExample) -> TargetExample:
    """The same with the refusal's opening alone, by which it is judged."""
    end = example.target_start + REFUSAL_OPENING
    return replace(
        example,
        ids=example.ids[:end],
        target_sets=example.target_sets[:REFUSAL_OPENING],
    )


def roles(example: TargetExample, first: int) -> npt.NDArray[np.int64]:
    """Where each token of a example from the first on stands."""
    at = np.arange(first, len(example.ids))
    found = np.full(len(at), READING)
    found[at == example.opening] = OPENING
    found[at > example.opening] = ANSWERING
    if example.target_sets:
        refusing = at >= example.target_start
        found[refusing] = REFUSING + (at - example.target_start)[refusing]
    return found
