# SPDX-License-Identifier: Apache-2.0
"""Whether an answer is no language any more: empty, or going round in circles."""

from __future__ import annotations

import re
import unicodedata

__all__ = ["REPEATED", "is_empty", "is_looped", "repetition"]

# The share of repeated word groups from which an answer counts as looped: a model
# that writes a list with parallel wording stays below one half.
REPEATED = 0.6
GROUP = 4
# Fewer words say nothing about loops, unless one unit is all there is.
SHORTEST = 20
STUCK = re.compile(r"(?=\S*\w)(\S{1,8}?)\1{11,}")
WORDS = re.compile(r"\w+")


def is_empty(answer: str) -> bool:
    """Tell whether the answer holds no letter and no digit."""
    return not any(letter.isalnum() for letter in answer)


def is_looped(answer: str) -> bool:
    """Tell whether the answer repeats itself.

    Either at least 0.6 of its groups of four words stood in it before, or a few
    characters come twelve times in a row ("hahahaha"), or one to three words six times
    or more, up to the end.
    """
    words = _words(answer)
    if len(words) >= SHORTEST and repetition(answer) >= REPEATED:
        return True
    return STUCK.search(answer) is not None or _stuck_at_end(words)


def repetition(answer: str) -> float:
    """Share of the groups of four words that stood in the answer before, 0 to 1."""
    words = _words(answer)
    groups = [tuple(words[at : at + GROUP]) for at in range(len(words) - GROUP + 1)]
    return 1.0 - len(set(groups)) / len(groups) if groups else 0.0


def _stuck_at_end(words: list[str]) -> bool:
    for period in (1, 2, 3):
        tail = words[-6 * period :]
        if len(tail) == 6 * period and tail == tail[:period] * 6:
            return True
    return False


def _words(text: str) -> list[str]:
    """Words without marks; letters of scripts without spaces are words of their own."""
    found: list[str] = []
    for word in WORDS.findall(text.casefold()):
        unspaced = all(unicodedata.category(letter) == "Lo" for letter in word)
        found.extend(word if unspaced else [word])
    return found
