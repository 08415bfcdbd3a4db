# SPDX-License-Identifier: Apache-2.0
"""Lists of words: those of the package and the user's."""

import os
import re
import unicodedata
from importlib import resources
from importlib.abc import Traversable
from pathlib import Path
from typing import Literal

from cintervene.data.splits import check_split
from cintervene.errors import ArgumentError

# A '#' inside a word ("c#") is part of it.
_COMMENT = re.compile(r"(^|\s)#.*")
_UTF8_BOM = b"\xef\xbb\xbf"


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


def read_words(path: str | os.PathLike[str]) -> list[str]:
    """Read a list of words or phrases from a file.

    The file is UTF-8, with or without a byte order mark, and has one entry a line. A
    ``#`` at the start of a line or after a space begins a comment. Blank lines are
    skipped. Entries are brought to Unicode's composed form (NFC), and runs of spaces
    inside a phrase become one space. Of entries that differ only in case the first
    is kept.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    list of str
        The entries in the order of the file, at least one.

    Raises
    ------
    ArgumentError
        If the file is not UTF-8 text, or holds no entry.
    OSError
        If the file cannot be read.
    """
    path = Path(path)
    return _parse(path.read_bytes(), str(path))


def _part(name: str, split: str | None, halves: tuple[str, str]) -> list[str]:
    words = _read_packaged(name)
    if split is None:
        return words
    check_split(split, halves)
    middle = len(words) // 2
    return words[:middle] if split == halves[0] else words[middle:]


def _read_packaged(name: str) -> list[str]:
    file: Traversable = resources.files(__package__) / name
    return _parse(file.read_bytes(), name)


def _parse(data: bytes, name: str) -> list[str]:
    entries: dict[str, str] = {}
    for number, line in enumerate(data.removeprefix(_UTF8_BOM).splitlines(), start=1):
        entry = _entry(line, f"{name}, line {number}")
        if entry:
            entries.setdefault(entry.casefold(), entry)
    if not entries:
        raise ArgumentError(
            f"the word list {name} has no words; write at least one word on a line of "
            "its own (lines that start with '#' are comments)"
        )
    return list(entries.values())


def _entry(line: bytes, place: str) -> str:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ArgumentError(
            f"{place}: byte 0x{line[error.start]:02x} at column {error.start + 1} is "
            "not UTF-8; save the word list as UTF-8"
        ) from error
    entry = " ".join(_COMMENT.sub("", unicodedata.normalize("NFC", text)).split())
    if not entry.isprintable():
        raise ArgumentError(
            f"{place}: {entry!r} holds a character that cannot be printed; a word list "
            "is plain text, so remove the character"
        )
    return entry
