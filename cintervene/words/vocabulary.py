# SPDX-License-Identifier: Apache-2.0
"""What the tokens of a vocabulary write, in the orders in which it is looked up."""

from __future__ import annotations

import codecs
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cintervene.utils.lazy import lazy
from cintervene.words.pieces import token_bytes
from cintervene.words.scripts import joins, last_unmarked
from cintervene.words.spellings import Read, Spellings

__all__ = ["Letters", "SortedTexts", "Vocabulary", "read_on"]


class Vocabulary:
    """The tokens of a model and the bytes that each writes.

    Parameters
    ----------
    written : mapping
        From tokens to the bytes of UTF-8 that they write; tokens that are missing, or
        write nothing, end a text.
    size : int, optional
        How many logits the model has; tokens beyond are not looked at.
    """

    def __init__(self, written: Mapping[int, bytes], size: int | None = None) -> None:
        self.written = {
            token: text
            for token, text in written.items()
            if size is None or token < size
        }

    @classmethod
    def of(cls, tokenizer: Any, size: int | None = None) -> Vocabulary:
        """The vocabulary of a tokenizer, which has `get_vocab`."""
        return cls(token_bytes(tokenizer), size)

    @lazy
    def whole(self) -> SortedTexts:
        """What each token writes."""
        return SortedTexts((text, one) for one, text in self.written.items() if text)

    @lazy
    def within(self) -> SortedTexts:
        """What tokens write from where a new word may begin within them."""
        return SortedTexts(
            (text[at:], token)
            for token, text in self.written.items()
            for at in range(1, len(text))
            if not _continues(text[at]) and not _inside(text[:at])
        )

    @lazy
    def behind(self) -> SortedTexts:
        """What they write from within, whatever stands before.

        Words that may begin there begin with no letter or digit of ASCII.
        """
        return SortedTexts(
            (text[at:], token)
            for token, text in self.written.items()
            for at in range(1, len(text))
            if not _continues(text[at]) and not text[at : at + 1].isalnum()
        )

    @lazy
    def letters(self) -> Letters:
        """What tokens write in whole characters."""
        return Letters.of(self.written)


class SortedTexts:
    """Byte strings in order, to find those that begin alike."""

    def __init__(self, entries: Iterable[tuple[bytes, int]]) -> None:
        self._entries = sorted(entries)
        self._texts = [text for text, _ in self._entries]

    def along(
        self, word: Spellings, read: Read
    ) -> Iterator[tuple[int, bytes, set[Read]]]:
        """Every (token, rest, reached) such that a part leads on along a word.

        The rest is what the token writes behind that part: nothing, or anything behind
        the whole word.
        """
        left = [(b"", 0, len(self._texts), {read})]
        while left:
            text, low, high, reads = left.pop()
            for byte in {one for read in reads for one in word.next_bytes(read)}:
                longer = text + bytes([byte])
                first = bisect_left(self._texts, longer, low, high)
                end = bisect_left(self._texts, _after(longer), first, high)
                if first == end:
                    continue
                reached = {two for one in reads for two in word.step(one, byte)}
                said = (len(word), b"") in reached
                for at in range(first, end):
                    rest = self._texts[at][len(longer) :]
                    if rest and not said:
                        break
                    yield self._entries[at][1], rest, reached
                left.append((longer, first, end, reached))


@dataclass(frozen=True, eq=False)
class Letters:
    """Tokens by the characters that they write, the longest first.

    Attributes
    ----------
    alphabet : ndarray
        Code points that tokens write, ascending.
    tokens : ndarray
        Those that write whole characters.
    columns : list of ndarray
        Of each place the characters there, as places in `alphabet`, for as many tokens
        as write one there.
    partial : dict
        Tokens that write a part of a character, and their bytes.
    """

    alphabet: npt.NDArray[np.int64]
    tokens: npt.NDArray[np.int64]
    columns: list[npt.NDArray[np.int32]]
    partial: dict[int, bytes]

    @classmethod
    def of(cls, written: Mapping[int, bytes]) -> Letters:
        """The letters of the tokens of a vocabulary."""
        whole: dict[int, str] = {}
        partial: dict[int, bytes] = {}
        for token, text in written.items():
            try:
                whole[token] = text.decode()
            except UnicodeDecodeError:
                partial[token] = text
        texts = sorted(
            ((text, token) for token, text in whole.items() if text),
            key=lambda one: -len(one[0]),
        )
        points = [np.array([ord(one) for one in text]) for text, _ in texts]
        everything = np.concatenate([np.zeros(0, np.int64), *points])
        alphabet, places = np.unique(everything, return_inverse=True)
        lengths = np.array([len(one) for one in points], dtype=np.int64)
        begins = np.cumsum(lengths) - lengths
        columns = [
            places[begins[: int((lengths > at).sum())] + at].astype(np.int32)
            for at in range(int(lengths.max(initial=0)))
        ]
        tokens = np.array([token for _, token in texts], dtype=np.int64)
        return cls(alphabet, tokens, columns, partial)


def read_on(pending: bytes, text: bytes) -> tuple[str, bytes]:
    """Characters of a text behind the bytes of an open one, and what is open then."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    return decoder.decode(pending + text), decoder.getstate()[0]


def _after(text: bytes) -> bytes:
    """The least byte string above all that begin with one of UTF-8."""
    return text[:-1] + bytes([text[-1] + 1]) if text[-1] < 255 else text + b"\xff"


def _continues(byte: int) -> bool:
    """Whether it is within a character of several bytes."""
    return 0x80 <= byte < 0xC0


def _inside(text: bytes) -> bool:
    """Whether a letter behind a text would be of the word that is going on."""
    if text[-1] < 128:
        return chr(text[-1]).isalnum()
    last = last_unmarked(text.decode(errors="ignore"))
    return bool(last) and joins(last)
