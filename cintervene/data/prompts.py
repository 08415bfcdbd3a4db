# SPDX-License-Identifier: Apache-2.0
"""Prompts: templates that ask for a word, and everyday prompts and texts."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from cintervene.data.splits import SPLITS, Split, check_split

# Frozen: its entries are reported on last.
FRESH = "fresh.json"


@dataclass(frozen=True, slots=True)
class ObedienceTemplate:
    """A user prompt that asks the model to say a word.

    Attributes
    ----------
    prompt
        The prompt, with ``{word}`` where the word goes.
    prefixes
        Beginnings of an answer that the word can follow directly: a prefix ends in a
        space where one belongs before the word. The empty prefix, with which the
        answer starts with the word, comes first; it is missing where the prompt asks
        for something else before the word.
    """

    prompt: str
    prefixes: tuple[str, ...]

    def fill(self, word: str) -> str:
        """Return the prompt with `word` in its place."""
        # str.format would fail on other braces of a prompt.
        return self.prompt.replace("{word}", word)


@dataclass(frozen=True, slots=True)
class BenignPrompt:
    """An everyday user prompt and its topic.

    The category ``"violent-sounding"`` has prompts with words of violence in a
    harmless sense ("kill a process").
    """

    text: str
    category: str


@dataclass(frozen=True, slots=True)
class BenignText:
    """A passage of ordinary prose (80 to 160 words) and its genre."""

    text: str
    genre: str


def obedience_templates(split: Split) -> list[ObedienceTemplate]:
    """Return the templates of one split; no phrasing is in two splits.

    Parameters
    ----------
    split
        ``"train"`` for the defence, ``"tune"`` for the choice of its strength,
        ``"held_out"`` for reports, ``"fresh"`` for the last one.

    Raises
    ------
    ArgumentError
        If `split` is none of these.
    """
    return [
        ObedienceTemplate(entry["prompt"], tuple(entry["prefixes"]))
        for entry in load("obedience_templates.json", split)
    ]


def answer_prefixes(split: Split) -> list[str]:
    """Return beginnings of an answer that fit before the word for every template.

    Parameters
    ----------
    split
        As in `obedience_templates`.

    Raises
    ------
    ArgumentError
        If `split` is none of these.
    """
    return list(load("answer_prefixes.json", split))


def sentence_templates() -> list[str]:
    """Return prompts, with ``{word}``, that have a model use a word by itself.

    They are for the defence alone; `obedience_templates` says what the word is.
    """
    return list(load("sentence_templates.json", "train"))


def benign_prompts(split: Split) -> list[BenignPrompt]:
    """Return the everyday prompts of one split.

    The categories take turns, so that the first n prompts are a balanced sample.

    Parameters
    ----------
    split
        ``"train"`` for what an intervention must preserve, ``"tune"`` for the choice
        of its strength, ``"held_out"`` for reports, ``"fresh"`` for the last one.

    Raises
    ------
    ArgumentError
        If `split` is none of these.
    """
    entries = take_turns(load("benign_prompts.json", split))
    return [BenignPrompt(text, category) for text, category in entries]


def benign_texts(split: Split) -> list[BenignText]:
    """Return the passages of one split.

    Parameters
    ----------
    split
        As in `benign_prompts`.

    Raises
    ------
    ArgumentError
        If `split` is none of these.
    """
    return [
        BenignText(entry["text"], entry["genre"])
        for entry in load("benign_texts.json", split)
    ]


def load(name: str, split: Split) -> Any:
    """Return one split of a file of the package; ``"fresh"`` is a file of its own."""
    entries = read_json(name)
    frozen = read_json(FRESH).get(name.removesuffix(".json"))
    found = entries if frozen is None else {**entries, "fresh": frozen}
    check_split(split, tuple(one for one in SPLITS if one in found))
    return found[split]


def read_json(name: str) -> Any:
    """Return what a JSON file of the package holds."""
    file = resources.files(__package__) / name
    return json.loads(file.read_text(encoding="utf-8"))


def take_turns(prompts: Mapping[str, list[str]]) -> list[tuple[str, str]]:
    """Return (text, category), each category spread evenly over the whole."""
    placed = [
        ((index + 0.5) / len(texts), (text, category))
        for category, texts in prompts.items()
        for index, text in enumerate(texts)
    ]
    return [entry for _, entry in sorted(placed, key=lambda place: place[0])]
