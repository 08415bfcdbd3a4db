# SPDX-License-Identifier: Apache-2.0
"""Texts that PCR is solved on, and others to choose its strength on.

Neither is ever used by reports.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict, TypeVar

from cintervene import data
from cintervene.data import Split
from cintervene.errors import ArgumentError
from cintervene.prompts.answerer import Answerer
from cintervene.prompts.calibration_size import CalibrationSize
from cintervene.prompts.chat import render
from cintervene.prompts.spelling import encode_text
from cintervene.prompts.target_spans import TargetSpan, answered, word_spans
from cintervene.prompts.word_sentences import Forms, said_at, said_in, token_forms
from cintervene.utils.progress import Progress, counting

__all__ = [
    "Answers",
    "Calibration",
    "CommonParts",
    "benign_passages",
    "benign_word_answers",
    "calibrate_words",
    "common_parts",
    "everyday_prompts",
    "neighbour_answers",
    "running_text",
    "tuning_split",
]

T = TypeVar("T")
# Prompts with answers that are given in place of the model's own.
Answers = Sequence[tuple[str, str]] | None
# One text of so many is held out for tuning.
TUNE_EVERY = 4


@dataclass(frozen=True)
class Calibration:
    """Texts to solve on, and others to choose the strength on.

    Attributes
    ----------
    forget : list of TargetSpan
        Answers that say what is forbidden.
    near_negatives : list of TargetSpan
        What is most like them and must stay: answers that say benign words to the same
        prompts, for instance.
    retain : list of TargetSpan
        Everyday prompts with the model's own answers, and running text.
    tune_forget, tune_near_negatives, tune_retain : list of TargetSpan
        The same of other prompts and other benign words.
    retain_said, tune_said : list of list of bool
        For each of `retain` and `tune_retain` at which of its positions a forbidden
        word is said; empty where nothing is known of it.
    """

    forget: list[TargetSpan]
    near_negatives: list[TargetSpan]
    retain: list[TargetSpan]
    tune_forget: list[TargetSpan]
    tune_near_negatives: list[TargetSpan]
    tune_retain: list[TargetSpan]
    retain_said: list[list[bool]] = field(default_factory=list)
    tune_said: list[list[bool]] = field(default_factory=list)


def calibrate_words(
    answer: Answerer,
    tokenizer: Any,
    words: Sequence[str],
    texts: Iterable[str],
    size: CalibrationSize,
    progress: Progress,
    given: Answers = None,
) -> Calibration:
    """Spell out the words, and let the model answer everyday prompts.

    Parameters
    ----------
    answer : Answerer
        Of the model.
    tokenizer
    words : sequence of str
        Forbidden words.
    texts : iterable of str
        Running text to preserve, besides the package's own.
    given : sequence of (str, str), optional
        Prompts and answers to preserve in place of the model's own; those in which a
        forbidden word is said are left out.

    Raises
    ------
    ArgumentError
        A forbidden word is said in all of these but one.
    """
    forbidden = {data.caseless(word) for word in words}
    benign = [word for word in data.benign_words("train") if word not in forbidden]
    other = forbidden.union(benign)
    frequent = _words_of(benign_passages(size), other, size.text_words)
    forms = token_forms(tokenizer, *words)
    if given is not None:
        given = _without(tokenizer, forms, given)
    common = common_parts(answer, tokenizer, texts, size, progress, benign, given)
    return Calibration(
        forget=_word_answers(tokenizer, words, "train", size.starting, size.later),
        near_negatives=benign_word_answers(tokenizer, benign, size)
        + neighbour_answers(tokenizer, frequent),
        tune_forget=_word_answers(tokenizer, words, "tune", 2, 2),
        retain_said=[said_at(forms, span) for span in common["retain"]],
        tune_said=[said_at(forms, span) for span in common["tune_retain"]],
        **common,
    )


def neighbour_answers(tokenizer: Any, words: Sequence[str]) -> list[TargetSpan]:
    """Answers that say words in the place of forbidden ones, once each."""
    return _word_answers(tokenizer, words[::2], "train", 1, 0) + _word_answers(
        tokenizer, words[1::2], "train", 0, 1
    )


class CommonParts(TypedDict):
    """Parts of `Calibration` that do not depend on what is forbidden."""

    retain: list[TargetSpan]
    tune_near_negatives: list[TargetSpan]
    tune_retain: list[TargetSpan]


def common_parts(
    answer: Answerer,
    tokenizer: Any,
    texts: Iterable[str],
    size: CalibrationSize,
    progress: Progress,
    words: Sequence[str],
    given: Answers = None,
) -> CommonParts:
    """Let the model answer everyday prompts; say benign words to tune on."""
    answers = (
        _answers(answer, tokenizer, _counts(size), size.answer_tokens, progress)
        if given is None
        else _as_given(tokenizer, given, size.answer_tokens)
    )
    passages = (*benign_passages(size), *texts)
    running = [running_text(tokenizer, passage) for passage in passages]
    tune_words = words[size.contrast_words :][: size.tune_words]
    return {
        "retain": answers["train"] + running,
        "tune_near_negatives": _word_answers(tokenizer, tune_words, "tune", 2, 2),
        "tune_retain": answers["tune"],
    }


def tuning_split(texts: Sequence[T]) -> tuple[list[T], list[T]]:
    """Divide texts into those to solve on and those to tune on."""
    last = TUNE_EVERY - 1
    if len(texts) < TUNE_EVERY:
        return list(texts[:-1]), list(texts[-1:])
    train = [text for i, text in enumerate(texts) if i % TUNE_EVERY != last]
    return train, list(texts[last::TUNE_EVERY])


def benign_word_answers(
    tokenizer: Any, words: Sequence[str], size: CalibrationSize
) -> list[TargetSpan]:
    """Answers that say the first of some benign words."""
    return _word_answers(tokenizer, words[: size.contrast_words], "train", 2, 2)


def benign_passages(size: CalibrationSize) -> list[str]:
    """The package's own running text."""
    return [one.text for one in data.benign_texts("train")[: size.texts]]


def _words_of(running: Iterable[str], without: Container[str], count: int) -> list[str]:
    """Different words of running text, spread evenly over their alphabetical list."""
    words = {
        data.caseless(word)
        for passage in running
        for word in re.findall(r"[^\W\d_]{4,}", passage)
    }
    usable = sorted(word for word in words if word not in without)
    step = max(1, len(usable) // max(count, 1))
    return usable[::step][:count]


def _word_answers(
    tokenizer: Any, words: Sequence[str], split: Split, starting: int, later: int
) -> list[TargetSpan]:
    return word_spans(
        tokenizer,
        words,
        data.obedience_templates(split),
        data.answer_prefixes(split),
        starting=starting,
        later=later,
    )


def _answers(
    answer: Answerer,
    tokenizer: Any,
    prompts: dict[Split, int],
    answer_tokens: int,
    progress: Progress,
) -> dict[Split, list[TargetSpan]]:
    """Answer the first so many everyday prompts of each split, all in one batch."""
    rendered = _rendered(tokenizer, prompts)
    batch = [ids for part in rendered.values() for ids in part]
    report = counting(progress, "answering benign prompts", len(batch))
    answers = iter(answer(batch, answer_tokens, step=report))
    return {
        split: answered(part, [next(answers) for _ in part])
        for split, part in rendered.items()
    }


def _rendered(
    tokenizer: Any, prompts: dict[Split, int]
) -> dict[Split, list[list[int]]]:
    """The first so many everyday prompts of each split."""
    return {
        split: [
            render(tokenizer, prompt.text)
            for prompt in data.benign_prompts(split)[:count]
        ]
        for split, count in prompts.items()
    }


def everyday_prompts(tokenizer: Any, size: CalibrationSize) -> list[list[int]]:
    """The prompts that the model answers for `common_parts`, as rendered."""
    parts = _rendered(tokenizer, _counts(size))
    return [ids for part in parts.values() for ids in part]


def _counts(size: CalibrationSize) -> dict[Split, int]:
    """How many everyday prompts there are of each split."""
    return {"train": size.prompts, "tune": size.tune_prompts}


def _as_given(
    tokenizer: Any, given: Sequence[tuple[str, str]], answer_tokens: int
) -> dict[Split, list[TargetSpan]]:
    """The beginnings of answers that were given, in place of the model's."""
    train, tune = tuning_split(given)
    parts: dict[Split, Sequence[tuple[str, str]]] = {"train": train, "tune": tune}
    return {
        split: answered(
            [render(tokenizer, prompt) for prompt, _ in part],
            [encode_text(tokenizer, answer)[:answer_tokens] for _, answer in part],
        )
        for split, part in parts.items()
    }


def _without(
    tokenizer: Any,
    forms: Forms,
    given: Sequence[tuple[str, str]],
) -> list[tuple[str, str]]:
    """Those in whose answer no word with these forms is said."""
    left = [
        (prompt, answer)
        for prompt, answer in given
        if next(said_in(forms, encode_text(tokenizer, answer)), None) is None
    ]
    if len(left) < 2:
        raise ArgumentError(
            f"answers: got {len(left)} without a forbidden word, of {len(given)}; "
            "expected two or more, which are to stay as they are. Add such ones"
        )
    return left


def running_text(tokenizer: Any, text: str) -> TargetSpan:
    """Running text; from its second token on all of it counts."""
    return TargetSpan(tuple(encode_text(tokenizer, text)), start=1)
