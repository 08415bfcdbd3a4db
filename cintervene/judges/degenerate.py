# SPDX-License-Identifier: Apache-2.0
"""Whether an answer is degenerate: empty, or repeating itself."""

from __future__ import annotations

import re
import unicodedata

__all__ = ["REPEATED", "is_empty", "is_looped", "repetition"]

# The share of repeated n-grams from which an answer counts as looped: a list with
# parallel wording stays below one half.
REPEATED = 0.6
GROUP = 4
# Too few words for the share to mean anything.
SHORTEST = 20
# Words that a loop at the end of an answer may have.
LONGEST = 12
STUCK = re.compile(r"(?=\S*\w)(\S{1,8}?)\1{11,}")
WORDS = re.compile(r"\w+")


def is_empty(answer: str) -> bool:
    """Tell whether the answer has no letter and no digit."""
    return not any(letter.isalnum() for letter in answer)


def is_looped(answer: str) -> bool:
    """Tell whether the answer repeats itself.

    Either at least 0.6 of its 4-grams of words occur earlier in it, or a few characters
    come twelve times in a row ("hahahaha"), or the answer ends in one to three words
    repeated six times, or in up to twelve words repeated three times, at least twelve
    words together.
    """
    words = _words(answer)
    if len(words) >= SHORTEST and repetition(answer) >= REPEATED:
        return True
    return STUCK.search(answer) is not None or _stuck_at_end(words)


def repetition(answer: str) -> float:
    """Share of the answer's 4-grams of words that occur earlier in it, 0 to 1."""
    words = _words(answer)
    groups = [tuple(words[at : at + GROUP]) for at in range(len(words) - GROUP + 1)]
    return 1.0 - len(set(groups)) / len(groups) if groups else 0.0


def _stuck_at_end(words: list[str]) -> bool:
    """Whether the answer ends in the same few words again and again.

    The last word may have been cut by a limit on the answer's length.
    """
    return any(_ends_in_loop(part) for part in (words, words[:-1]))


def _ends_in_loop(words: list[str]) -> bool:
    for period in range(1, LONGEST + 1):
        repeated = 0
        pairs = zip(reversed(words), reversed(words[:-period]), strict=False)
        for word, before in pairs:
            if word != before:
                break
            repeated += 1
        length = repeated + period if repeated else 0
        if length >= max(3 * period, 12) or (period <= 3 and length >= 6 * period):
            return True
    return False


def _words(text: str) -> list[str]:
    """Words without marks; in scripts without spaces each letter is a word."""
    words: list[str] = []
    for word in WORDS.findall(text.casefold()):
        unspaced = all(unicodedata.category(letter) == "Lo" for letter in word)
        words.extend(word if unspaced else [word])
    return words
