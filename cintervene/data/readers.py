# SPDX-License-Identifier: Apache-2.0
"""Files of words, of requests and of texts, one reader for each.

A file is plain UTF-8 text with an entry on each line, or a table: CSV, TSV, JSON or
JSON lines, by its ending.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from cintervene.data.decoding import decoded, lines_of
from cintervene.data.tables import (
    Columns,
    is_table,
    looks_like_table,
    rows_of,
    values_of,
)
from cintervene.data.words import normal_word, unique_words
from cintervene.errors import ArgumentError

__all__ = ["read_requests", "read_texts", "read_words"]

# A '#' with something else right before or behind it ("c#", "#metoo") is a word's own.
COMMENT = re.compile(r"(^|\s)#(\s.*)?$")

# Marks of Markdown and of numbered lists.
ITEM = re.compile(r"([-*•]|\d+[.)]) \S")
# Formats in which lines are no entries.
STRUCTURED = {".yaml", ".yml", ".toml", ".xml", ".html", ".htm"}

WORDS: Columns = (
    ("word", "words", "phrase", "phrases", "term", "terms", "keyword", "forbidden"),
    ("text",),
)
# Those of AdvBench and JailbreakBench, HarmBench, StrongREJECT, Alpaca, and others.
REQUESTS: Columns = (
    ("goal",),
    ("behavior", "forbidden_prompt"),
    ("instruction",),
    ("prompt", "request", "question", "query", "messages", "conversations"),
    ("conversation", "text", "input"),
)
TEXTS: Columns = (
    ("text", "texts", "sentence", "passage", "example", "document"),
    *REQUESTS,
    ("content",),
)


def read_words(path: str | os.PathLike[str], column: str | None = None) -> list[str]:
    """Read a list of words or phrases from a file.

    The file is UTF-8, with or without a byte order mark, and has one entry a line. A
    ``#`` with white space or nothing on both sides begins a comment. Blank lines are
    skipped; every line break of Unicode, such as a form feed, ends a line. Entries are
    brought to the form of `normal_word`. Of entries that differ only in case the first
    is kept. Files whose names end in .csv, .tsv, .json or .jsonl are tables.

    Parameters
    ----------
    path
        The file.
    column : str, optional
        Of a table; default: one with a name such as "word".

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
    table = is_table(Path(path))
    entries = [
        (place, line if table else COMMENT.sub("", line))
        for place, entry in _entries(Path(path), WORDS, column, "word list")
        for line in ([entry] if table else entry.splitlines())
    ]
    words = [normal_word(place, entry) for place, entry in entries if entry.strip()]
    if len(words) > 1 and all(map(ITEM.match, words)):
        raise ArgumentError(
            f"{path}: each entry begins as items of a list do ({words[0]!r}); leave "
            "away what is before the words"
        )
    if not words:
        raise ArgumentError(
            f"the word list {path} has no words; write at least one word on a line of "
            "its own (lines that start with '# ' are comments)"
        )
    return unique_words(words)


def read_requests(path: str | os.PathLike[str], column: str | None = None) -> list[str]:
    """Read requests, as a user would send them, from a file.

    Each line is a request as it stands, whatever it holds: there are no comments. Blank
    lines and repeated requests are skipped. Requests of several lines need a table. In
    a table the column is that of the usual benchmarks, or `column`; `messages` are
    conversations in which the user speaks once. Where Alpaca has an input and HarmBench
    a context, these belong to the request.

    Parameters
    ----------
    path
        The file: UTF-8 text, or a table whose name ends in .csv, .tsv, .json or .jsonl.
    column : str, optional
        Of a table.

    Returns
    -------
    list of str
        At least one.

    Raises
    ------
    ArgumentError
        If the file is not UTF-8, holds no request, or its column cannot be told.
    OSError
        If the file cannot be read.
    """
    return _unchanged(Path(path), REQUESTS, column, "request")


def read_texts(path: str | os.PathLike[str], column: str | None = None) -> list[str]:
    """Read texts from a file, as `read_requests`; the column may be called "text"."""
    return _unchanged(Path(path), TEXTS, column, "text")


def _unchanged(
    path: Path, columns: Columns, column: str | None, what: str
) -> list[str]:
    entries = list(_entries(path, columns, column, f"file of {what}s"))
    for place, entry in entries:
        if "\0" in entry:
            raise ArgumentError(
                f"{place}: {entry[:40]!r} holds a NUL, so that the file is binary, or "
                "UTF-16 without a mark; save it as UTF-8"
            )
        if any("\ud800" <= letter <= "\udfff" for letter in entry):
            raise ArgumentError(
                f"{place}: {entry[:40]!r} holds half of a character, as JSON can write "
                "it; write the whole character"
            )
    found = list(dict.fromkeys(entry.strip() for _, entry in entries if entry.strip()))
    if not found:
        raise ArgumentError(
            f"{path} has no {what}s; write at least one {what} on a line of its own"
        )
    return found


def _entries(
    path: Path, columns: Columns, column: str | None, what: str
) -> Iterator[tuple[str, str]]:
    """Pairs of a place in a file and the entry there."""
    text = decoded(path, what)
    if path.suffix.lower() in STRUCTURED:
        raise ArgumentError(
            f"{path}: a {path.suffix} file cannot be read; save the {what} with an "
            "entry on each line, or as CSV or JSON lines"
        )
    if is_table(path):
        yield from values_of(list(rows_of(path, text)), columns, column)
        return
    ending = looks_like_table(text, columns)
    if ending or column is not None:
        raise ArgumentError(
            f"{path}: "
            + (
                f"holds a table, but its name does not say so; let it end in {ending}"
                if ending
                else f"has lines, and no column {column!r}; leave the column out"
            )
        )
    for at, line in enumerate(lines_of(text), start=1):
        yield f"{path}, line {at}", line
