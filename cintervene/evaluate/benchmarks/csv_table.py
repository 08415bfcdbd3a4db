# SPDX-License-Identifier: Apache-2.0
"""Reading the CSV files of public benchmarks."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path

from cintervene.errors import ArgumentError

__all__ = ["read_table"]

# Of a header that is told.
LONGEST = 200


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
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            header = reader.fieldnames or ()
            rows = [{name: row.get(name) or "" for name in columns} for row in reader]
    except (ValueError, csv.Error) as error:
        raise ArgumentError(
            f"{path} cannot be read as CSV ({error}); give the file as published"
        ) from error
    return header, rows
