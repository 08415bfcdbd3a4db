# SPDX-License-Identifier: Apache-2.0
"""Requests to refuse, requests to answer, and refusals.

The harmful requests are short and generic; nothing here explains how anything is done.
"""

from __future__ import annotations

from dataclasses import dataclass

from cintervene.data.prompts import BenignPrompt, load, take_turns
from cintervene.data.splits import Split

__all__ = [
    "HarmfulPrompt",
    "borderline_prompts",
    "compliance_prefixes",
    "conversations",
    "disguise_templates",
    "harmful_prompts",
    "jailbreak_templates",
    "ordinary_templates",
    "safe_refusals",
]


@dataclass(frozen=True, slots=True)
class HarmfulPrompt:
    """A request that a model should refuse, and its topic.

    Prompts of the category ``"contextual"`` begin with a passage of text that is
    harmless by itself.
    """

    text: str
    category: str


def harmful_prompts(split: Split) -> list[HarmfulPrompt]:
    """Return the harmful requests of one split.

    The categories take turns, so that the first n prompts are a balanced sample.

    Parameters
    ----------
    split
        ``"train"`` for the defence, ``"tune"`` for choices, ``"held_out"`` for
        reports, ``"fresh"`` for the last one.

    Raises
    ------
    ArgumentError
        If `split` is none of these.
    """
    entries = take_turns(load("harmful_prompts.json", split))
    return [HarmfulPrompt(text, category) for text, category in entries]


def borderline_prompts(split: Split) -> list[BenignPrompt]:
    """Return requests that sound harmful, or are built like harmful ones, but are not.

    Homonyms, figures of speech, games and fiction, definitions, history, nonsense,
    public facts, safety advice, and passages of text with a harmless question.

    Parameters
    ----------
    split
        As in `harmful_prompts`.

    Raises
    ------
    ArgumentError
        If `split` is none of these.
    """
    entries = take_turns(load("borderline_prompts.json", split))
    return [BenignPrompt(text, category) for text, category in entries]


def jailbreak_templates(split: Split) -> list[str]:
    """Return templates of jailbreak prompts.

    See `fill_template`.

    Parameters
    ----------
    split
        As in `harmful_prompts`.

    Raises
    ------
    ArgumentError
        If `split` is none of these.
    """
    return list(load("jailbreak_templates.json", split))


def ordinary_templates(split: Split) -> list[str]:
    """Return templates of everyday forms of requests.

    Roles, formats, languages, letters, stories. Some are among `jailbreak_templates`
    and `disguise_templates` as well: only the request in them makes the difference. See
    `fill_template`.

    Parameters
    ----------
    split
        As in `harmful_prompts`.

    Raises
    ------
    ArgumentError
        If `split` is none of these.
    """
    return list(load("ordinary_templates.json", split))


def disguise_templates() -> list[str]:
    """Return templates that disguise a request.

    Scenes, characters, forms, rules for the answer, halves and encodings: training
    data besides `jailbreak_templates`. See `fill_template`.
    """
    return list(load("disguise_templates.json", "train"))


def conversations(split: Split = "held_out") -> dict[str, list[list[list[str]]]]:
    """Return beginnings of conversations that a request can follow.

    System prompts, ordinary and permissive ones, and turns of a user and an assistant.

    Parameters
    ----------
    split
        Only ``"held_out"``.

    Returns
    -------
    dict of str to list
        By kind: each beginning a list of [role, content].

    Raises
    ------
    ArgumentError
        If `split` is another one.
    """
    return dict(load("conversations.json", split))


def compliance_prefixes(split: Split) -> list[str]:
    """Return beginnings of an answer that complies.

    Parameters
    ----------
    split
        As in `harmful_prompts`.

    Raises
    ------
    ArgumentError
        If `split` is none of these.
    """
    return list(load("compliance_prefixes.json", split))


def safe_refusals() -> list[str]:
    """Return short answers that refuse.

    The first is the default target of methods that train refusals.
    """
    return list(load("safe_refusals.json", "train"))
