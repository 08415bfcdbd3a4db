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
    Lesson,
    Writer,
    answered,
    check_given,
    check_spared,
)
from cintervene.utils.progress import Progress

__all__ = [
    "ANSWERING", "OPENING", "READING", "REFUSING", "GateLessons", "prepare", "roles"
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
class GateLessons:
    """Lessons to fit to and to choose on.

    Attributes
    ----------
    harmful : list of list of Lesson
        Those about one request together.
    benign, tune_harmful, tune_benign : list of Lesson
    """

    harmful: list[list[Lesson]]
    benign: list[Lesson]
    tune_harmful: list[Lesson]
    tune_benign: list[Lesson]


def prepare(
    model: nn.Module,
    tokenizer: Any,
    harmful: Sequence[str],
    refusal: str,
    preserve: Sequence[str],
    benign: int,
    answer_tokens: int,
    progress: Progress,
) -> GateLessons:
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
    writer = Writer(tokenizer, [*harmful, *plain], [refusal], templates)
    sounding = [prompt.text for prompt in data.borderline_prompts("train")][:benign]
    spared = [*sounding, *preserve, *plain]
    check_spared(spared, "benign")
    texts = [*spared[::OWN], *later]
    answer = answered(model, tokenizer, writer, texts, answer_tokens, progress)
    forms = data.ordinary_templates("train")
    beginnings = data.compliance_prefixes("tune")
    borderline = [prompt.text for prompt in data.borderline_prompts("tune")]
    tuned = [prompt.text for prompt in data.harmful_prompts("tune")]
    return GateLessons(
        harmful=[
            list(_refused(writer, turn, text)) for turn, text in enumerate(harmful)
        ],
        benign=[
            lesson
            for turn, text in enumerate(spared)
            for lesson in _kept(writer, forms, turn, text, answer)
        ],
        tune_harmful=[
            _opened(writer.refusal(text, begun, 0))
            for turn, text in enumerate(tuned)
            for begun in ("", beginnings[turn % len(beginnings)])
        ],
        tune_benign=[writer.keep(text) for text in borderline]
        + [writer.keep(text, answer=answer[text]) for text in later],
    )


def _refused(writer: Writer, turn: int, text: str) -> Iterator[Lesson]:
    yield writer.refusal(text, "", 0)
    beginnings = writer.beginnings
    for at in range(turn * BEGINNINGS, (turn + 1) * BEGINNINGS):
        yield writer.refusal(text, beginnings[at % len(beginnings)], 0)
    if turn % TALKED == 1:
        talked = data.fill_in_turn(writer.templates, turn // TALKED, text)
        yield writer.refusal(talked, "", 0)


def _kept(
    writer: Writer,
    forms: Sequence[str],
    turn: int,
    text: str,
    answer: Mapping[str, Sequence[int]],
) -> Iterator[Lesson]:
    if turn % OWN == 0:
        yield writer.keep(text, answer=answer[text])
    else:
        begun = writer.beginnings[turn // OWN % len(writer.beginnings)]
        yield writer.keep(text, begun)
    # Of `writer.templates` only those that are such forms, too: who uses the others has
    # something to hide.
    if turn % FORMED == 0:
        yield writer.keep(data.fill_in_turn(forms, turn // FORMED, text))
    if turn % APOLOGISED == 1:
        yield writer.keep(text, APOLOGIES[turn // APOLOGISED % len(APOLOGIES)])


def _opened(lesson: Lesson) -> Lesson:
    """The same with the refusal's opening alone, by which it is judged."""
    end = lesson.start + REFUSAL_OPENING
    return replace(lesson, ids=lesson.ids[:end], sets=lesson.sets[:REFUSAL_OPENING])


def roles(lesson: Lesson, first: int) -> npt.NDArray[np.int64]:
    """Where each token of a lesson from the first on stands."""
    at = np.arange(first, len(lesson.ids))
    found = np.full(len(at), READING)
    found[at == lesson.opening] = OPENING
    found[at > lesson.opening] = ANSWERING
    if lesson.sets:
        refusing = at >= lesson.start
        found[refusing] = REFUSING + (at - lesson.start)[refusing]
    return found
