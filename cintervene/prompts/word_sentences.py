# SPDX-License-Identifier: Apache-2.0
"""Text of the model's own in which a word is said unasked."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from cintervene.prompts.answerer import Answerer
from cintervene.prompts.chat import render
from cintervene.prompts.spelling import (
    before_last_part,
    distinctive,
    encode_text,
    surface_forms,
)
from cintervene.prompts.target_spans import TargetSpan
from cintervene.utils.progress import Step

__all__ = [
    "Forms", "given_sentences", "said_at", "said_in", "sentence_prompts",
    "token_forms", "word_sentences",
]  # fmt: skip

# The tokens that words are written with, by the first of them.
Forms = Mapping[int, Collection[tuple[int, ...]]]
# Of one answer: a word that is repeated tells no more.
OCCURRENCES = 2


def sentence_prompts(
    tokenizer: Any, words: Sequence[str], templates: Sequence[str], count: int
) -> list[tuple[str, list[int]]]:
    """Words, and the prompts to write about them or to say them, as rendered.

    Parameters
    ----------
    words : sequence of str
    templates : sequence of str
        With ``{word}``; they take turns.
    count : int
        Prompts for each word.
    """
    asked = [
        (word, templates[(number + turn) % len(templates)].replace("{word}", word))
        for number, word in enumerate(words)
        for turn in range(count)
    ]
    return [(word, render(tokenizer, prompt)) for word, prompt in asked]


def word_sentences(
    answer: Answerer,
    tokenizer: Any,
    words: Sequence[str],
    templates: Sequence[str],
    count: int,
    tokens: int,
    step: Step,
) -> list[TargetSpan]:
    """Let the model write about words, and find where it says them.

    Parameters
    ----------
    words, templates, count
        See `sentence_prompts`.
    tokens : int
        Length of an answer.
    step : callable
        Called with numbers of finished answers.

    Returns
    -------
    list of TargetSpan
        Each ends with a word, in the chat and as a text by itself; there are none of a
        word that the model did not say.
    """
    asked = sentence_prompts(tokenizer, words, templates, count)
    prompts = [prompt for _, prompt in asked]
    answers = answer(prompts, tokens, step=step)
    spans: list[TargetSpan] = []
    forms = {word: token_forms(tokenizer, word) for word in words}
    for (word, _), prompt, said in zip(asked, prompts, answers, strict=True):
        spans += _sayings(tokenizer, word, forms[word], prompt, said)
    return spans


def given_sentences(
    tokenizer: Any, words: Sequence[str], given: Sequence[tuple[str, str]]
) -> list[TargetSpan]:
    """As `word_sentences`, of prompts with answers that there are already."""
    rendered = [
        (render(tokenizer, prompt), encode_text(tokenizer, answer))
        for prompt, answer in given
    ]
    forms = {word: token_forms(tokenizer, word) for word in words}
    return [
        span
        for word in words
        for prompt, answer in rendered
        for span in _sayings(tokenizer, word, forms[word], prompt, answer)
    ]


def _sayings(
    tokenizer: Any,
    word: str,
    forms: Forms,
    prompt: Sequence[int],
    answer: Sequence[int],
) -> Iterator[TargetSpan]:
    """Where a word with these forms is said in an answer."""
    occurrences = said_in(forms, answer)
    for begin, length in islice(occurrences, OCCURRENCES):
        text = answer[: begin + length]
        weights = tuple(distinctive(tokenizer, one, word) for one in text[begin:])
        count = before_last_part(tokenizer, text[begin:], word)
        # As a text by itself, it has to have a beginning.
        for before in (prompt, []) if begin > 1 else (prompt,):
            ids, start = (*before, *text), len(before) + begin
            yield TargetSpan(
                ids, start, word, begin > 0, weights=weights, before_last_part=count
            )


def token_forms(tokenizer: Any, *words: str) -> Forms:
    """The tokens of words in all surface forms, with and without a space before them.

    They are found by the first of them: there may be hundreds of words.
    """
    found: dict[int, set[tuple[int, ...]]] = {}
    for word in words:
        for form in surface_forms(word):
            for gap in ("", " "):
                tokens = tuple(encode_text(tokenizer, gap + form))
                if tokens:
                    found.setdefault(tokens[0], set()).add(tokens)
    return found


def said_in(forms: Forms, ids: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Where words' tokens are among others: (first, how many) of each occurrence.

    Where several begin at one place, the longest counts.
    """
    for begin, token in enumerate(ids):
        found = [
            len(form)
            for form in forms.get(token, ())
            if tuple(ids[begin : begin + len(form)]) == form
        ]
        if found:
            yield begin, max(found)


def said_at(forms: Forms, span: TargetSpan) -> list[bool]:
    """At which targets of a span one of the words with these forms is said."""
    places = {
        place
        for begin, length in said_in(forms, span.targets)
        for place in range(begin, begin + length)
    }
    return [place in places for place in range(len(span.targets))]
