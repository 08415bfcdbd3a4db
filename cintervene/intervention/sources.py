# SPDX-License-Identifier: Apache-2.0
"""What interventions were made from, where they were scaled or added."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["made_for_words", "sources", "template_options_of"]


def sources(options: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the options of a change, or of those that it was scaled or added from."""
    parts = [options["from"]] if "from" in options else options.get("sum_of")
    if parts is None:
        yield options
        return
    for part in parts:
        yield from sources(part)


def made_for_words(options: Mapping[str, Any]) -> list[bool]:
    """Of each of `sources`: whether it forbids words, or nothing is known of it."""
    return [not part or bool(part.get("forbid")) for part in sources(options)]


def template_options_of(options: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What a change was made with, where all of its `sources` were made so."""
    first, *others = (part.get("template_options") for part in sources(options))
    return first if all(one == first for one in others) else None
