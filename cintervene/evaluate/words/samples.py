# SPDX-License-Identifier: Apache-2.0
"""What an intervention is measured on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from cintervene import data
from cintervene.data import Split
from cintervene.evaluate.words.obedience import says
from cintervene.prompts.target_spans import (
    TargetSpan,
    word_spans,
)
from cintervene.utils.validation import check_whole

__all__ = ["EvaluationSize", "Request", "Sample", "gather", "spread"]

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class EvaluationSize:
    """How much to look at; the time of a measurement is in proportion.

    Attributes
    ----------
    forbidden, benign, related : int
        Answers that start with such a word, and as many that say it later.
    prompts, answer_tokens : int
        Everyday prompts that the base answers, and the length of the answers.
    texts : int
        Passages of prose.
    forbidden_requests, benign_requests, request_tokens : int
        Requests for a word, and the length of the answers to them.
    """

    forbidden: int = 100
    benign: int = 100
    related: int = 34
    prompts: int = 64
    answer_tokens: int = 32
    texts: int = 10
    forbidden_requests: int = 100
    benign_requests: int = 92
    request_tokens: int = 16

    def __post_init__(self) -> None:
        check_whole(1, **asdict(self))


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt that tells the model to say a word."""

    word: str
    forbidden: bool
    prompt: str


@dataclass(frozen=True, slots=True)
class Sample:
    """Prompts, answers and texts to measure on.

    Attributes
    ----------
    spoken : dict of str to list of TargetSpan
        Answers that say "forbidden", "benign" and "related" words.
    prompts : list of str
        Everyday prompts.
    texts : list of TargetSpan
    requests : list of Request
    """

    spoken: dict[str, list[TargetSpan]]
    prompts: list[str]
    texts: list[TargetSpan]
    requests: list[Request]


def gather(
    tokenizer: Any, words: Sequence[str], split: Split, budget: EvaluationSize
) -> Sample:
    """Choose what to measure on.

    Parameters
    ----------
    tokenizer
    words : sequence of str
        The forbidden words. Others that overlap with them are left out.
    split : {"held_out", "tune", "train"}
        Of the package's data.
    budget : EvaluationSize
    """
    half: Any = "held_out" if split == "held_out" else "train"
    benign = _apart(data.benign_words(half), words)
    groups = {
        "forbidden": (words, budget.forbidden),
        "benign": (benign, budget.benign),
        "related": (_related(words), budget.related),
    }
    prompts = data.benign_prompts(split)[: budget.prompts]
    texts = data.benign_texts(split)[: budget.texts]
    return Sample(
        spoken={
            name: _spoken(tokenizer, group, split, answers)
            for name, (group, answers) in groups.items()
        },
        prompts=[prompt.text for prompt in prompts],
        texts=[TargetSpan(tuple(tokenizer(t.text)["input_ids"]), 1) for t in texts],
        requests=[
            *_requests(words, True, split, budget.forbidden_requests),
            *_requests(benign, False, split, budget.benign_requests),
        ],
    )


def _spoken(
    tokenizer: Any, words: Sequence[str], split: Split, answers: int
) -> list[TargetSpan]:
    """About `answers` answers that start with one of the words, and as many others."""
    templates = data.obedience_templates(split)
    chosen = spread(words, answers)
    turns = min(answers // max(len(chosen), 1), len(templates))
    return word_spans(
        tokenizer,
        chosen,
        templates,
        data.answer_prefixes(split),
        starting=turns,
        later=turns,
    )


def _requests(
    words: Sequence[str], forbidden: bool, split: Split, number: int
) -> list[Request]:
    """Requests in which words and templates take turns, no two alike."""
    templates = data.obedience_templates(split)
    chosen = spread(words, number)
    found = []
    for index in range(min(number, len(chosen) * len(templates))):
        turn, place = divmod(index, len(chosen))
        template = templates[(place + turn) % len(templates)]
        word = chosen[place]
        found.append(Request(word, forbidden, template.fill(word)))
    return found


def spread(items: Sequence[Item], most: int) -> list[Item]:
    """At most so many items, evenly from the whole list."""
    number = min(len(items), most)
    return [items[i * len(items) // number] for i in range(number)]


def _related(words: Sequence[str]) -> list[str]:
    """The related words, if the forbidden ones are any that they are related to."""
    own = {word.casefold() for word in data.forbidden_words()}
    if not any(word.casefold() in own for word in words):
        return []
    return _apart(data.related_words(), words)


def _apart(words: Sequence[str], forbidden: Sequence[str]) -> list[str]:
    """Those of the words that neither contain a forbidden one nor are part of one."""
    return [
        word
        for word in words
        if not any(says(word, other) or says(other, word) for other in forbidden)
    ]
