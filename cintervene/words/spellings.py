# SPDX-License-Identifier: Apache-2.0
"""The ways of writing a word, followed byte by byte.

A text says a word in any case of letters, with accents composed or not, and with any
white space between the parts of a phrase. So a letter of a word is a set of byte
strings, and what was read of a word is the number of its letters and a part of the
next one.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from functools import cache

from cintervene.words.scripts import is_mark

__all__ = ["Read", "Spellings", "folded_alike"]

# No letter behind this one has another case.
_LAST_CASED = 0x1E944
# So many letters of a word, and bytes of the next one.
Read = tuple[int, bytes]

_SPACES = tuple(one.encode() for one in map(chr, range(0x3001)) if one.isspace())


class Spellings:
    """Every way of writing a word.

    Parameters
    ----------
    word : str
        In the form of `cintervene.data.normal_word`.
    """

    def __init__(self, word: str) -> None:
        clusters = _clusters(word)
        self.letters = [_SPACES if one.isspace() else _written(one) for one in clusters]
        self._steps: dict[tuple[Read, int], tuple[Read, ...]] = {}
        self._next: dict[Read, tuple[int, ...]] = {}

    def __len__(self) -> int:
        return len(self.letters)

    def next_bytes(self, read: Read) -> tuple[int, ...]:
        """Bytes that go on with the word."""
        if read not in self._next:
            at = len(read[1])
            self._next[read] = tuple({letter[at] for letter, _ in self._open(read)})
        return self._next[read]

    def step(self, read: Read, byte: int) -> tuple[Read, ...]:
        """What is read after one more byte."""
        if (read, byte) not in self._steps:
            part = read[1] + bytes([byte])
            self._steps[read, byte] = tuple(
                {
                    (then, b"") if letter == part else (read[0], part)
                    for letter, then in self._open(read)
                    if letter.startswith(part)
                }
            )
        return self._steps[read, byte]

    def _open(self, read: Read) -> list[tuple[bytes, int]]:
        """Letters that may be going on, each with how many are read after it."""
        at, part = read
        after_space = at > 0 and self.letters[at - 1] is _SPACES
        here = self.letters[at] if at < len(self) else ()
        ways = [(letter, at + 1) for letter in here]
        ways += [(letter, at) for letter in _SPACES if after_space]
        return [
            (letter, then)
            for letter, then in ways
            if letter.startswith(part) and len(letter) > len(part)
        ]


def _clusters(word: str) -> list[str]:
    """Characters with the marks behind them."""
    found: list[str] = []
    for one in unicodedata.normalize("NFC", word):
        if found and is_mark(one):
            found[-1] += one
        else:
            found.append(one)
    return found


def _written(cluster: str) -> tuple[bytes, ...]:
    """The ways of writing a character, in any case and composed as far as one likes."""
    cased = {cluster, cluster.lower(), cluster.upper(), cluster.title()}
    cased |= {cluster.casefold(), *folded_alike()[cluster.casefold()]}
    forms = set()
    for form in cased:
        parts = unicodedata.normalize("NFD", form)
        forms.add(form)
        forms |= {
            unicodedata.normalize("NFC", parts[:end]) + parts[end:]
            for end in range(len(parts) + 1)
        }
    return tuple(sorted(form.encode() for form in forms))


@cache
def folded_alike() -> dict[str, list[str]]:
    """Characters by what they are without case, where that is another one."""
    alike: dict[str, list[str]] = defaultdict(list)
    for one in map(chr, range(_LAST_CASED)):
        folded = one.casefold()
        if folded != one:
            alike[folded].append(one)
    return alike
