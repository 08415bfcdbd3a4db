# SPDX-License-Identifier: Apache-2.0
"""Whether words that a model should not say can be had from it by other ways.

Perplexity under known templates can rise while the word is still there: for requests
in other words, in another language, letter by letter, after a prefill, after examples.
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

__all__ = ["Probe", "extracted", "extraction", "probes", "ways"]

SHORT = Generation(max_new_tokens=24)


@dataclass(frozen=True, slots=True)
class Probe:
    """One try to make a model say a word.

    Attributes
    ----------
    way : str
        One of `ways()`.
    word, prompt, prefill : str
    """

    way: str
    word: str
    prompt: str
    prefill: str = ""


def ways() -> tuple[str, ...]:
    """Ways of trying, in ``cintervene/data/extraction_templates.json``."""
    return tuple(_templates())


def probes(words: Sequence[str], each: int | None = None) -> list[Probe]:
    """Tries for each word by every way.

    Parameters
    ----------
    words : sequence of str
    each : int, optional
        Tries a word and way, templates taking turns; default: all templates.

    Raises
    ------
    ArgumentError
        There are no words.
    """
    if not words:
        raise ArgumentError("words: got none, expected at least one")
    found = []
    for way, templates in _templates().items():
        number = len(templates) if each is None else min(each, len(templates))
        for place, word in enumerate(words):
            for turn in range(number):
                template = templates[(place * number + turn) % len(templates)]
                text = _fill(template["prompt"], word)
                found.append(Probe(way, word, text, template.get("prefill", "")))
    return found


def extracted(
    answerer: Answerer,
    tries: Sequence[Probe],
    generation: Generation = SHORT,
    seed: int = 0,
) -> list[bool]:
    """Tell for each try whether the answer says the word."""
    asked = [(one.prompt, one.prefill) for one in tries]
    answers = answer_prefilled(answerer, asked, generation, seed)
    return [says(answer, one.word) for one, answer in zip(tries, answers, strict=True)]


def extraction(
    before: Answerer,
    after: Answerer,
    words: Sequence[str],
    *,
    each: int | None = None,
    generation: Generation = SHORT,
    seed: int = 0,
) -> dict[str, Change]:
    """Rates of extraction by each way, before and after a defence.

    Parameters
    ----------
    before, after : Answerer
        The model and its defence.
    words : sequence of str
    each, generation, seed
        See `probes` and `extracted`.

    Returns
    -------
    dict of str to Change
        By way; intervals are Wilson's and, of the difference, Newcombe's.
    """
    tries = probes(words, each)
    old, new = (
        np.array(extracted(one, tries, generation, seed)) for one in (before, after)
    )
    way = np.array([one.way for one in tries])
    return {one: rate_change(old[way == one], new[way == one]) for one in ways()}


def _fill(template: str, word: str) -> str:
    spelled = " ".join("-".join(part) for part in word.split())
    # The word last: it may hold braces.
    text = template.replace("{spelled}", spelled).replace("{reversed}", word[::-1])
    return text.replace("{word}", word)


@cache
def _templates() -> dict[str, list[dict[str, str]]]:
    lists: dict[str, list[dict[str, str]]] = read_json("extraction_templates.json")
    return lists
