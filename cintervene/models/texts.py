# SPDX-License-Identifier: Apache-2.0
"""Lists of texts as they come in: checked."""

from __future__ import annotations

from collections.abc import Iterable

from cintervene.errors import ArgumentError

__all__ = ["check_texts"]


def check_texts(name: str, texts: object) -> list[str]:
    """Return the texts; refuse what is none, a single one, and blank ones."""
    if isinstance(texts, str) or not isinstance(texts, Iterable):
        raise ArgumentError(f"{name}: got {texts!r}; expected a list of texts")
    found = list(texts)
    for one in found:
        if not isinstance(one, str) or not one.strip():
            raise ArgumentError(f"{name}: got {one!r}; expected texts, none blank")
    return found
