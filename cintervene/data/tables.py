# SPDX-License-Identifier: Apache-2.0
"""Tables of words, requests or texts: CSV, JSON, JSON lines, as benchmarks have them.

The column is found by its name, or named by the user.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cintervene.data.decoding import lines_of
from cintervene.errors import ArgumentError
from cintervene.utils.json_text import parse_json

__all__ = ["Columns", "is_table", "looks_like_table", "rows_of", "values_of"]

TABLES = {".csv", ".tsv", ".json", ".jsonl", ".ndjson"}
# Names of columns; of the first group of which there is one, there must be but one.
Columns = Sequence[Sequence[str]]
# By column: others that belong to it where they are not empty, and how.
TOGETHER = {
    "instruction": (("input", "{0}\n\n{1}"), ("context", "{0}\n\n{1}")),
    "behavior": (("contextstring", "{1}\n\n---\n\n{0}"),),
}
# Of the messages of a conversation.
USERS = {"user", "human"}

Row = tuple[str, Any]


def is_table(path: Path) -> bool:
    """Whether a file is a table by its name."""
    return path.suffix.lower() in TABLES


def looks_like_table(text: str, columns: Columns) -> str:
    """The ending that a file should have whose content is a table; empty if none is."""
    first = next((line for line in lines_of(text) if line.strip()), "")
    for ending, part in ((".json", text), (".jsonl", first)):
        if part.lstrip()[:1] in ("[", "{"):
            try:
                json.loads(part)
            except (ValueError, RecursionError):
                continue
            return ending
    names = {name for group in columns for name in group}
    for ending, delimiter in ((".csv", ","), (".tsv", "\t"), (".csv", ";")):
        cells = first.split(delimiter)
        # A sentence has spaces behind its commas.
        header = len(cells) > 1 and all(cell == cell.strip() for cell in cells)
        if header and names & set(map(_key, cells)):
            return ending
    return ""


def rows_of(path: Path, text: str) -> Iterator[Row]:
    """Pairs of a place, for messages, and what stands there.

    Raises
    ------
    ArgumentError
        The file is not what its name says.
    """
    ending = path.suffix.lower()
    if ending in (".csv", ".tsv"):
        yield from _csv_rows(path, text, ending)
        return
    if ending == ".json":
        try:
            content = parse_json(text)
        except ValueError:
            # Many files are called so that have a value on each line.
            content = None
        if content is not None:
            for at, value in enumerate(_entries(path, content), 1):
                yield f"{path}, entry {at}", value
            return
    for at, line in enumerate(lines_of(text), 1):
        if line.strip():
            place = f"{path}, line {at}"
            try:
                yield place, parse_json(line)
            except ValueError as error:
                raise ArgumentError(
                    f"{place}: is not JSON ({error}); expected a text or an object on "
                    "each line"
                ) from error


def _csv_rows(path: Path, text: str, ending: str) -> Iterator[Row]:
    header = text.partition("\n")[0]
    semicolons = ";" in header and "," not in header
    delimiter = "\t" if ending == ".tsv" else ";" if semicolons else ","
    # Else a quote that is never closed swallows the rows behind it.
    reader = csv.DictReader(
        io.StringIO(text, newline=""), delimiter=delimiter, strict=True
    )
    try:
        _check_header(path, reader.fieldnames or ())
        for row in reader:
            place = f"{path}, line {reader.line_num}"
            if None in row:
                raise ArgumentError(
                    f"{place}: has more cells than the header; expected texts with "
                    f"{delimiter!r} in them between double quotes"
                )
            yield place, row
    except csv.Error as error:
        raise ArgumentError(
            f"{path}, line {reader.line_num}: is not CSV ({error}); save the table as "
            "CSV, or as JSON lines (.jsonl)"
        ) from error


def _check_header(path: Path, names: Sequence[str]) -> None:
    """Refuse two columns of one name, of which the last alone would be read."""
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if twice is not None:
        raise ArgumentError(
            f"{path}, line 1: two columns are called {twice!r}; give them other names"
        )


def _entries(path: Path, content: Any) -> Sequence[Any]:
    """The list that a JSON file is or holds."""
    lists = [content]
    if isinstance(content, dict):
        lists = [value for value in content.values() if isinstance(value, list)]
    if len(lists) != 1 or not isinstance(lists[0], list):
        raise ArgumentError(
            f"{path}: holds {len(lists)} lists; expected one list, of texts or of "
            "objects, in a JSON file"
        )
    return lists[0]


def values_of(
    rows: Sequence[Row], columns: Columns, column: str | None
) -> Iterator[tuple[str, str]]:
    """Pairs of a place and the text of the column in each row that is not empty.

    Raises
    ------
    ArgumentError
        It cannot be told which column, there is no such, a row lacks it, or it holds no
        text.
    """
    chosen = ""
    for place, row in rows:
        value: Any = row
        if isinstance(row, Mapping):
            named = {_key(name): value for name, value in row.items()}
            chosen = chosen or _column(place, list(row), columns, column)
            if chosen not in named:
                raise ArgumentError(
                    f"{place}: has no {chosen!r}, which the rows before it have; "
                    "expected the same name in all rows"
                )
            value = named[chosen]
            if value is not None and column is None:
                value = _with_others(place, chosen, value, named)
        if value is not None:
            text = _text(place, value)
            if text.strip():
                yield place, text


def _key(name: str) -> str:
    """A column's name as it is compared."""
    return str(name).strip().strip('"').casefold().replace("-", "_").replace(" ", "_")


def _column(
    place: str, names: Sequence[str], columns: Columns, column: str | None
) -> str:
    """The column that is meant."""
    keys = [_key(name) for name in names]
    listed = ", ".join(map(repr, names))
    if column is not None:
        if _key(column) not in keys:
            raise ArgumentError(
                f"{place}: there is no column {column!r} among {listed}; name one of "
                "these"
            )
        chosen = _key(column)
        if keys.count(chosen) > 1:
            raise ArgumentError(
                f"{place}: several of the columns {listed} are called {column!r}; give "
                "them other names"
            )
        return chosen
    for group in columns:
        found = [name for name in keys if name in group]
        if len(found) == 1:
            return found[0]
        if found:
            break
    raise ArgumentError(
        f"{place}: it cannot be told which of the columns {listed} is meant; name it "
        "behind the file, as in table.csv:prompt, or give column="
    )


def _with_others(place: str, chosen: str, value: Any, row: Mapping[str, Any]) -> str:
    """A text with what belongs to it."""
    text = _text(place, value)
    for other, form in TOGETHER.get(chosen, ()):
        more = row.get(other)
        if isinstance(more, str) and more.strip():
            text = form.format(text, more)
    return text


def _text(place: str, value: Any) -> str:
    """A text, or what the user says in a conversation, which must be one thing."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(isinstance(m, dict) for m in value):
        said = [
            message.get("content", message.get("value"))
            for message in value
            if str(message.get("role", message.get("from"))).lower() in USERS
        ]
        if len(said) == 1:
            return _content(place, said[0])
        raise ArgumentError(
            f"{place}: holds a conversation in which the user speaks {len(said)} "
            "times; expected once, for a request is a single message"
        )
    raise ArgumentError(
        f"{place}: got {value!r:.80}; expected a text, or messages with role and "
        "content"
    )


def _content(place: str, content: Any) -> str:
    """A message's text, which may come in parts."""
    parts = content if isinstance(content, list) else [{"text": content}]
    found = [part.get("text") if isinstance(part, dict) else part for part in parts]
    texts = [text for text in found if isinstance(text, str)]
    if len(texts) < len(found):
        raise ArgumentError(f"{place}: got {content!r:.80}; expected a message of text")
    return "".join(texts)
