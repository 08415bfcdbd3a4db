# SPDX-License-Identifier: Apache-2.0
"""Whether words that a model should not say can be had from it by other ways.

Perplexity under known templates can rise while the word is still there: for requests
in other words, in another language, letter by letter, after a prefill, after examples.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources

import numpy as np

from cintervene.baselines.answering import Answerer, Generation
from cintervene.errors import ArgumentError
from cintervene.evaluate.intervals import paired_difference, wilson
from cintervene.evaluate.obedience import says
from cintervene.evaluate.records import Change

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
    found = [False] * len(tries)
    for prefill in dict.fromkeys(one.prefill for one in tries):
        at = [k for k, one in enumerate(tries) if one.prefill == prefill]
        settings = replace(generation, prefill=prefill)
        answers = answerer.answer([tries[k].prompt for k in at], settings, seed)
        for k, answer in zip(at, answers, strict=True):
            found[k] = says(answer, tries[k].word)
    return found


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
    return {one: _change(old[way == one], new[way == one]) for one in ways()}


def _change(old: np.ndarray, new: np.ndarray) -> Change:
    first, then = (wilson(int(x.sum()), x.size) for x in (old, new))
    return Change(first, then, paired_difference(old, new), "difference")


def _fill(template: str, word: str) -> str:
    spelled = " ".join("-".join(part) for part in word.split())
    # The word last: it may hold braces.
    text = template.replace("{spelled}", spelled).replace("{reversed}", word[::-1])
    return text.replace("{word}", word)


@cache
def _templates() -> dict[str, list[dict[str, str]]]:
    file = resources.files("cintervene.data") / "extraction_templates.json"
    lists: dict[str, list[dict[str, str]]] = json.loads(
        file.read_text(encoding="utf-8")
    )
    return lists
