# SPDX-License-Identifier: Apache-2.0
"""Reading the CSV files of public benchmarks."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path

from cintervene.data.decoding import decoded
from cintervene.errors import ArgumentError

__all__ = ["has_columns", "read_table"]

# Characters of a header that are told.
LONGEST = 200


def has_columns(path: str | os.PathLike[str], columns: Sequence[str]) -> bool:
    """Whether a file is a CSV table with these columns, among others.

    Raises
    ------
    OSError, ArgumentError
        The file cannot be read, is not UTF-8, or has a first line beyond all measure.
    """
    lines = csv.reader(io.StringIO(decoded(Path(path)), newline=""))
    try:
        header = next(lines, [])
    except csv.Error as error:
        raise ArgumentError(
            f"{path}, line 1: got what is neither a table nor a request ({error}); "
            "expected a request on each line, or a CSV file"
        ) from error
    return set(columns) <= set(header)


def read_table(
    path: str | os.PathLike[str], columns: Sequence[str], *, key: str, text: str
) -> list[dict[str, str]]:
    """Read the rows of a CSV file with a header; missing cells are empty strings.

    Parameters
    ----------
    path : path
        UTF-8, with or without a byte order mark.
    columns : sequence of str
        Columns that the file must have.
    key, text : str
        Columns that no row may leave empty; the key of each row is unique.

    Raises
    ------
    OSError
        The file cannot be read.
    ArgumentError
        A column, a key or a text is missing, or a key occurs twice.
    """
    header, rows = _read(Path(path), columns)
    missing = [name for name in columns if name not in header]
    if missing:
        raise ArgumentError(
            f"{path}: got columns {', '.join(header)[:LONGEST] or 'none'}, expected "
            f"{', '.join(missing)} too; give the file as published"
        )
    known: set[str] = set()
    for number, row in enumerate(rows, 1):
        if not row[text].strip() or not row[key] or row[key] in known:
            raise ArgumentError(
                f"{path}: row {number} has {text} {row[text]!r} and {key} "
                f"{row[key]!r}; expected a text and a unique {key}; correct the row"
            )
        known.add(row[key])
    return rows


def _read(
    path: Path, columns: Sequence[str]
) -> tuple[Sequence[str], list[dict[str, str]]]:
    """The header, and of each row the cells of the columns."""
    reader = csv.DictReader(io.StringIO(decoded(path), newline=""))
    try:
        header = reader.fieldnames or ()
        rows = [{name: row.get(name) or "" for name in columns} for row in reader]
    except csv.Error as error:
        raise ArgumentError(
            f"{path}, line {reader.line_num}: is not CSV ({error}); give the file as "
            "published"
        ) from error
    return header, rows
