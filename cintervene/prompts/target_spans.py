# SPDX-License-Identifier: Apache-2.0
"""Prompts with answers in which a word is said."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from cintervene.data import ObedienceTemplate
from cintervene.prompts.chat import render
from cintervene.prompts.spelling import (
    before_last_part,
    distinctive,
    first_tokens,
    spell,
    surface_forms,
)

__all__ = ["TargetSpan", "answered", "word_spans"]


@dataclass(frozen=True, slots=True)
class TargetSpan:
    """A prompt and an answer, of which the last tokens matter.

    Attributes
    ----------
    ids : tuple of int
        Prompt and answer.
    start : int
        The tokens from here on are those that matter: a word, or the whole answer.
    word : str
        The word said, or empty.
    later : bool
        Whether something comes before the word in the answer.
    openings : dict of int to float
        Every first token, over all surface forms, that could begin the word at
        `start`, and how distinctive it is.
    weights : tuple of float
        How distinctive each of the tokens that matter is; see `spelling.distinctive`.
    before_last_part : int
        How many of the tokens that matter come before a phrase's last part; 0 for a
        word.
    """

    ids: tuple[int, ...]
    start: int
    word: str = ""
    later: bool = False
    openings: dict[int, float] = field(default_factory=dict)
    weights: tuple[float, ...] = ()
    before_last_part: int = 0

    @property
    def positions(self) -> range:
        """Positions whose next token matters."""
        return range(self.start - 1, len(self.ids) - 1)

    @property
    def targets(self) -> tuple[int, ...]:
        """The tokens that matter, one for each of `positions`."""
        return self.ids[self.start :]


def word_spans(
    tokenizer: Any,
    words: Sequence[str],
    templates: Sequence[ObedienceTemplate],
    prefixes: Sequence[str],
    *,
    starting: int,
    later: int,
    offset: int = 0,
) -> list[TargetSpan]:
    """Answers in which each word is said.

    Templates, prefixes and surface forms take turns, so that every word meets
    different ones and all are used alike; nothing is random.

    Parameters
    ----------
    words : sequence of str
    templates : sequence of ObedienceTemplate
        Prompts that tell the model to say the word.
    prefixes : sequence of str
        Beginnings of an answer, used beside the templates' own.
    starting : int
        Answers a word that start with the word.
    later : int
        Answers a word in which it comes after a prefix.
    offset : int
        Where to begin in the rotation; another offset gives other combinations.
    """
    begin = [template for template in templates if "" in template.prefixes]
    spans = []
    for number, word in enumerate(words):
        for turn in _turns(offset, number, starting if begin else 0):
            template = begin[turn % len(begin)]
            spans.append(_say(tokenizer, template, "", word, turn + number))
        for turn in _turns(offset, number, later):
            template = templates[turn % len(templates)]
            prefix = _prefix(template, prefixes, turn + number)
            spans.append(_say(tokenizer, template, prefix, word, turn + number))
    return spans


def _turns(offset: int, number: int, count: int) -> range:
    """The next `count` turns after those of the words before."""
    return range(offset + number * count, offset + (number + 1) * count)


def answered(
    prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]
) -> list[TargetSpan]:
    """Rendered prompts with whole answers; answers without a token are left out."""
    return [
        TargetSpan((*prompt, *answer), len(prompt))
        for prompt, answer in zip(prompts, answers, strict=True)
        if len(answer) > 0
    ]


def _prefix(template: ObedienceTemplate, prefixes: Sequence[str], turn: int) -> str:
    """The template's own prefixes and the general ones, by turns."""
    of_template = [prefix for prefix in template.prefixes if prefix]
    if of_template and (turn % 2 == 0 or not prefixes):
        return of_template[turn // 2 % len(of_template)]
    return prefixes[turn // 2 % len(prefixes)]


def _forms(word: str, later: bool) -> Iterator[str]:
    """Surface forms in the proportion in which answers show them."""
    lower, *others = surface_forms(word)
    capitalised = others[0] if others else lower
    upper = others[1] if len(others) > 1 else capitalised
    if later:
        yield from (lower, lower, capitalised, lower, upper)
    else:
        yield from (lower, capitalised, lower, capitalised, upper)


def _say(
    tokenizer: Any, template: ObedienceTemplate, prefix: str, word: str, turn: int
) -> TargetSpan:
    forms = list(_forms(word, later=bool(prefix)))
    context, tokens = spell(tokenizer, prefix, forms[turn % len(forms)])
    prompt = render(tokenizer, template.fill(word))
    return TargetSpan(
        ids=(*prompt, *context, *tokens),
        start=len(prompt) + len(context),
        word=word,
        later=bool(prefix),
        openings=first_tokens(tokenizer, prefix, word),
        weights=tuple(distinctive(tokenizer, token, word) for token in tokens),
        before_last_part=before_last_part(tokenizer, tokens, word),
    )
