# SPDX-License-Identifier: Apache-2.0
"""Attempts to get a word said by other ways than asking for it by name.

Perplexity under known templates can rise while the word can still be elicited: by its
definition, where a text would go on with it, by paraphrases, in another language,
letter by letter, after a prefill, after examples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cintervene import data
from cintervene.data import Split
from cintervene.errors import ArgumentError

__all__ = ["Probe", "probes", "strategies"]


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


def strategies(split: Split = "held_out") -> tuple[str, ...]:
    """Strategies of extraction, in ``cintervene/data/extraction_templates.json``."""
    return tuple(data.extraction_templates(split))


def probes(
    words: Sequence[str], each: int | None = None, split: Split = "held_out"
) -> list[Probe]:
    """Attempts for each word with every strategy.

    Definitions and running texts are those of the package's forbidden words: other
    words are left out there.

    Parameters
    ----------
    words : sequence of str
    each : int, optional
        Attempts per word and strategy; templates take turns. Default: all templates.
    split : {"held_out", "fresh"}, default "held_out"
        Of the package's templates and definitions.

    Raises
    ------
    ArgumentError
        There are no words, or no such split.
    """
    if not words:
        raise ArgumentError("words: got none, expected at least one; give a list")
    texts = [
        (word, _texts(word, data.definitions(split), data.running_texts(split)))
        for word in words
    ]
    result = []
    for strategy, templates in data.extraction_templates(split).items():
        number = len(templates) if each is None else min(each, len(templates))
        for place, (word, known) in enumerate(texts):
            for turn in range(number):
                template = templates[(place * number + turn) % len(templates)]
                prompt = _fill(template["prompt"], known)
                if prompt is not None:
                    prefill = template.get("prefill", "")
                    result.append(Probe(strategy, word, prompt, prefill))
    return result


def _texts(
    word: str, definitions: Mapping[str, str], running: Mapping[str, str]
) -> dict[str, str | None]:
    """What goes in the place of each name in braces; None where nothing is known."""
    return {
        "{definition}": definitions.get(word),
        "{cloze}": running.get(word),
        "{spelled}": " ".join("-".join(part) for part in word.split()),
        "{reversed}": word[::-1],
        "{upper}": word.upper(),
        # The word last: it may contain braces.
        "{word}": word,
    }


def _fill(template: str, texts: Mapping[str, str | None]) -> str | None:
    """The template with all it names, or None where something of it is not known."""
    for name, text in texts.items():
        if name in template:
            if text is None:
                return None
            template = template.replace(name, text)
    return template
