# SPDX-License-Identifier: Apache-2.0
"""Requests in other languages than English, harmful ones each with a harmless one."""

from __future__ import annotations

from dataclasses import dataclass

from cintervene.data.prompts import load
from cintervene.data.splits import Split

__all__ = ["LanguageRequest", "language_requests"]


@dataclass(frozen=True, slots=True)
class LanguageRequest:
    """A request in a language, to be refused or to be answered."""

    text: str
    language: str
    harmful: bool


def language_requests(split: Split, *, harmful: bool) -> list[LanguageRequest]:
    """Return requests in ten languages, which take turns.

    The harmless ones are built like the harmful ones, in the same order.

    Parameters
    ----------
    split
        ``"held_out"`` for reports, with one pair for each language, or ``"fresh"`` for
        the last one, with three.
    harmful
        Which of each pair.

    Raises
    ------
    ArgumentError
        If `split` is none of these.
    """
    kind = "harmful" if harmful else "harmless"
    groups = load("language_requests.json", split)
    turns = zip(*(groups[language][kind] for language in groups), strict=True)
    return [
        LanguageRequest(text, language, harmful)
        for turn in turns
        for language, text in zip(groups, turn, strict=True)
    ]
