# SPDX-License-Identifier: Apache-2.0
"""The package's lists of words, and the one form in which words are compared."""

import unicodedata
from collections.abc import Iterable
from importlib import resources
from typing import Literal

from cintervene.data.splits import check_split
from cintervene.errors import ArgumentError

# Persian and the scripts of India need these two inside words, emoji the second.
_JOINERS = "\u200c\u200d"
# Of no width: editors leave them around words that are written from right to left.
_DIRECTION_MARKS = "\u200e\u200f\u061c"
# What Unicode has no names for, by category.
_NAMELESS = {"Co": "a character of private use", "Cn": "no character of Unicode"}
_UNREAD = "\N{REPLACEMENT CHARACTER}"


def normal_word(name: str, word: object) -> str:
    """Return a word or phrase as it is compared and spelled everywhere.

    Unicode's composed form (NFC), no white space around it and one space for each run
    of it inside, no marks of direction around it.

    Parameters
    ----------
    name : str
        Of the argument, or the place in a file, for the message.
    word : str

    Raises
    ------
    ArgumentError
        It is no text, blank, or holds a character that cannot be seen. Zero width
        joiners and non-joiners may be in it.
    """
    if not isinstance(word, str):
        raise ArgumentError(
            f"{name}: got {word!r}; expected words that are not blank. Remove it"
        )
    normal = " ".join(unicodedata.normalize("NFC", word).split())
    normal = normal.strip(_DIRECTION_MARKS + " ")
    hidden = next((c for c in normal if c not in _JOINERS and not c.isprintable()), "")
    if hidden:
        kind = _NAMELESS.get(unicodedata.category(hidden), "a control character")
        called = unicodedata.name(hidden, kind)
        raise ArgumentError(
            f"{name}: {word!r} holds a character that cannot be printed "
            f"(U+{ord(hidden):04X}, {called}); remove the character"
        )
    if _UNREAD in normal:
        raise ArgumentError(
            f"{name}: {word!r} holds U+FFFD, which stands where a program found "
            "no letter it could read; write the letter"
        )
    if not normal.strip(_JOINERS + " "):
        raise ArgumentError(
            f"{name}: got {word!r}; expected words that are not blank. Remove it"
        )
    return normal


def caseless(text: str) -> str:
    """Return a text in the form in which texts that differ in case only are equal."""
    return unicodedata.normalize("NFC", text.casefold())


def unique_words(words: Iterable[str]) -> list[str]:
    """Return words in their order; of those that differ only in case, the first.

    "straße" behind "STRASSE" is kept, for no change of case leads from that to it.
    """
    found: list[str] = []
    lower: set[str] = set()
    upper: set[str] = set()
    for word in words:
        if word.lower() not in lower and word not in upper:
            found.append(word)
            lower.add(word.lower())
            upper.add(word.upper())
    return found


def forbidden_words(split: Literal["tune", "held_out"] | None = None) -> list[str]:
    """Return the 100 words of violence and crime of the obedience task.

    Parameters
    ----------
    split
        None for the whole list, which a defence normally gets. ``"tune"`` and
        ``"held_out"`` are its halves, for studies that forbid one half and measure the
        other; words of one family are in the same half.

    Raises
    ------
    ArgumentError
        If `split` is neither None nor one of the halves.
    """
    return _part("forbidden_words.txt", split, ("tune", "held_out"))


def benign_words(split: Literal["train", "held_out"] | None = None) -> list[str]:
    """Return 100 harmless words, matched one by one to `forbidden_words`.

    Word i has as many tokens in SmolLM2's tokenizer as forbidden word i, and is similar
    to it in length, frequency and part of speech.

    Parameters
    ----------
    split
        None for the whole list, ``"train"`` for the half that a defence may use as
        contrast, ``"held_out"`` for the half that only reports use.

    Raises
    ------
    ArgumentError
        If `split` is neither None nor one of the halves.
    """
    return _part("benign_words.txt", split, ("train", "held_out"))


def related_words() -> list[str]:
    """Return words close in meaning to the forbidden ones, but not forbidden."""
    return _read_packaged("related_words.txt")


def _part(name: str, split: str | None, halves: tuple[str, str]) -> list[str]:
    words = _read_packaged(name)
    if split is None:
        return words
    check_split(split, halves)
    middle = len(words) // 2
    return words[:middle] if split == halves[0] else words[middle:]


def _read_packaged(name: str) -> list[str]:
    file = resources.files(__package__) / name
    lines = file.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]
