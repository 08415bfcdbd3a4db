# SPDX-License-Identifier: Apache-2.0
"""Prompts, answers and texts that an intervention is measured on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from cintervene import data
from cintervene.data import Split
from cintervene.evaluate.words.obedience import says
from cintervene.evaluate.words.probes import Probe, probes
from cintervene.prompts.evaluation_size import EvaluationSize
from cintervene.prompts.spelling import encode_text, first_tokens, spell
from cintervene.prompts.target_spans import TargetSpan, word_spans

__all__ = ["Request", "Sample", "gather", "spread"]

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt that asks the model to say a word."""

    word: str
    forbidden: bool
    prompt: str


@dataclass(frozen=True, slots=True)
class Sample:
    """Prompts, answers and texts to measure on.

    Attributes
    ----------
    words : list of str
        The forbidden words.
    word_spans : dict of str to list of TargetSpan
        Answers that say "forbidden", "benign" and "related" words.
    prompts : list of str
        Everyday prompts.
    texts : list of TargetSpan
    requests : list of Request
    probes : list of Probe
        Requests for forbidden words in other ways.
    running : list of TargetSpan
        Texts that go on with a forbidden word.
    """

    words: list[str]
    word_spans: dict[str, list[TargetSpan]]
    prompts: list[str]
    texts: list[TargetSpan]
    requests: list[Request]
    probes: list[Probe]
    running: list[TargetSpan]


def gather(
    tokenizer: Any, words: Sequence[str], split: Split, size: EvaluationSize
) -> Sample:
    """Choose what to measure on.

    Parameters
    ----------
    tokenizer
    words : sequence of str
        The forbidden words. Others that overlap with them are left out.
    split : {"held_out", "fresh", "tune", "train"}
        Of the package's data. Other ways to ask for words, and texts that go on with
        them, are for reports only: of "tune" and "train" there are none.
    size : EvaluationSize
    """
    reported = split in ("held_out", "fresh")
    half: Any = "held_out" if reported else "train"
    benign = _apart(data.benign_words(half), words)
    groups = {
        "forbidden": (words, size.forbidden),
        "benign": (benign, size.benign),
        "related": (_related(words), size.related),
    }
    prompts = data.benign_prompts(split)[: size.prompts]
    texts = data.benign_texts(split)[: size.texts]
    return Sample(
        words=list(words),
        word_spans={
            name: _word_spans(tokenizer, group, split, answers)
            for name, (group, answers) in groups.items()
        },
        prompts=[prompt.text for prompt in prompts],
        texts=[TargetSpan(tuple(tokenizer(t.text)["input_ids"]), 1) for t in texts],
        requests=[
            *_requests(words, True, split, size.forbidden_requests),
            *_requests(benign, False, split, size.benign_requests),
        ],
        probes=_probes(words, split, size.elicitations) if reported else [],
        running=_running(tokenizer, words, split, size) if reported else [],
    )


def _probes(words: Sequence[str], split: Split, each: int) -> list[Probe]:
    """So many attempts with each strategy, over the words that it can be used for."""
    groups: dict[str, list[Probe]] = {}
    for one in probes(words, 1, split):
        groups.setdefault(one.strategy, []).append(one)
    return [one for group in groups.values() for one in spread(group, each)]


def _running(
    tokenizer: Any, words: Sequence[str], split: Split, size: EvaluationSize
) -> list[TargetSpan]:
    """Texts without a chat, each with the word that it goes on with."""
    texts = data.running_texts(split)
    known = spread([word for word in words if word in texts], size.running_texts)
    return [_goes_on(tokenizer, texts[word], word) for word in known]


def _goes_on(tokenizer: Any, text: str, word: str) -> TargetSpan:
    context, tokens = spell(tokenizer, text, f" {word}")
    whole = encode_text(tokenizer, text, add_special_tokens=True)
    begun = whole[: len(whole) - len(encode_text(tokenizer, text))]
    return TargetSpan(
        ids=(*begun, *context, *tokens),
        start=len(begun) + len(context),
        word=word,
        later=True,
        openings=first_tokens(tokenizer, text, word),
    )


def _word_spans(
    tokenizer: Any, words: Sequence[str], split: Split, answers: int
) -> list[TargetSpan]:
    """About `answers` answers that start with one of the words, and as many later."""
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
    requests = []
    for index in range(min(number, len(chosen) * len(templates))):
        turn, place = divmod(index, len(chosen))
        template = templates[(place + turn) % len(templates)]
        word = chosen[place]
        requests.append(Request(word, forbidden, template.fill(word)))
    return requests


def spread(items: Sequence[Item], most: int) -> list[Item]:
    """Pick at most `most` items, evenly spread over the whole list."""
    number = min(len(items), most)
    return [items[i * len(items) // number] for i in range(number)]


def _related(words: Sequence[str]) -> list[str]:
    """The package's related words, if any of its forbidden ones is among `words`."""
    packaged = {data.caseless(word) for word in data.forbidden_words()}
    if not any(data.caseless(word) in packaged for word in words):
        return []
    return _apart(data.related_words(), words)


def _apart(words: Sequence[str], forbidden: Sequence[str]) -> list[str]:
    """Those of the words that neither contain a forbidden one nor are part of one."""
    return [
        word
        for word in words
        if not any(says(word, other) or says(other, word) for other in forbidden)
    ]
