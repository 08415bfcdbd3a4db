# SPDX-License-Identifier: Apache-2.0
"""Extraction: whether other prompts still make a model say its forbidden words.

Perplexity under known templates can rise while the word can still be elicited: by
paraphrases, in another language, letter by letter, after a prefill, after examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from cintervene.baselines.answering import Answerer, Generation, answer_prefilled
from cintervene.data.prompts import read_json
from cintervene.errors import ArgumentError
from cintervene.evaluate.statistics.paired import Change, rate_change
from cintervene.evaluate.words.obedience import says

__all__ = ["Probe", "extracted", "extraction", "probes", "strategies"]

SHORT = Generation(max_new_tokens=24)


@dataclass(frozen=True, slots=True)
class Probe:
    """One attempt to make a model say a word.

    Attributes
    ----------
    strategy : str
        One of `strategies()`.
    word, prompt, prefill : str
    """

    strategy: str
    word: str
    prompt: str
    prefill: str = ""


def strategies() -> tuple[str, ...]:
    """Strategies of extraction, in ``cintervene/data/extraction_templates.json``."""
    return tuple(_templates())


def probes(words: Sequence[str], each: int | None = None) -> list[Probe]:
    """Attempts for each word with every strategy.

    Parameters
    ----------
    words : sequence of str
    each : int, optional
        Attempts per word and strategy; templates take turns. Default: all templates.

    Raises
    ------
    ArgumentError
        There are no words.
    """
    if not words:
        raise ArgumentError("words: got none, expected at least one; give a list")
    result = []
    for strategy, templates in _templates().items():
        number = len(templates) if each is None else min(each, len(templates))
        for place, word in enumerate(words):
            for turn in range(number):
                template = templates[(place * number + turn) % len(templates)]
                text = _fill(template["prompt"], word)
                result.append(Probe(strategy, word, text, template.get("prefill", "")))
    return result


def extracted(
    answerer: Answerer,
    attempts: Sequence[Probe],
    generation: Generation = SHORT,
    seed: int = 0,
) -> list[bool]:
    """Tell for each attempt whether the answer says the word."""
    prompts = [(one.prompt, one.prefill) for one in attempts]
    answers = answer_prefilled(answerer, prompts, generation, seed)
    pairs = zip(attempts, answers, strict=True)
    return [says(answer, one.word) for one, answer in pairs]


def extraction(
    before: Answerer,
    after: Answerer,
    words: Sequence[str],
    *,
    each: int | None = None,
    generation: Generation = SHORT,
    seed: int = 0,
) -> dict[str, Change]:
    """Rates of extraction with each strategy, before and after a defence.

    Parameters
    ----------
    before, after : Answerer
        The model without and with its defence.
    words : sequence of str
    each, generation, seed
        See `probes` and `extracted`.

    Returns
    -------
    dict of str to Change
        By strategy; intervals are Wilson's and, of the difference, Newcombe's.
    """
    attempts = probes(words, each)
    old, new = (
        np.array(extracted(one, attempts, generation, seed)) for one in (before, after)
    )
    used = np.array([one.strategy for one in attempts])
    return {
        strategy: rate_change(old[used == strategy], new[used == strategy])
        for strategy in strategies()
    }


def _fill(template: str, word: str) -> str:
    spelled = " ".join("-".join(part) for part in word.split())
    # The word last: it may contain braces.
    text = template.replace("{spelled}", spelled).replace("{reversed}", word[::-1])
    return text.replace("{word}", word)


@cache
def _templates() -> dict[str, list[dict[str, str]]]:
    lists: dict[str, list[dict[str, str]]] = read_json("extraction_templates.json")
    return lists
