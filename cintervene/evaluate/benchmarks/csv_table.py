# SPDX-License-Identifier: Apache-2.0
"""Reading the CSV files of public benchmarks."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path

from cintervene.errors import ArgumentError

__all__ = ["read_table"]


def read_table(
    path: str | os.PathLike[str], columns: Sequence[str], *, key: str, text: str
) -> list[dict[str, str]]:
    """Rows of a CSV with a header; what is not there reads as an empty string.

    Parameters
    ----------
    path : path
        UTF-8, with or without a byte order mark.
    columns : sequence of str
        Columns that must be there.
    key, text : str
        Columns that no row may leave empty; the key differs from row to row.

    Raises
    ------
    OSError
        The file cannot be read.
    ArgumentError
        A column, a key or a text is missing, or a key is there twice.
    """
    with Path(path).open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream)
        header = reader.fieldnames or []
        missing = [name for name in columns if name not in header]
        if missing:
            raise ArgumentError(
                f"{path}: got columns {', '.join(header) or 'none'}, expected "
                f"{', '.join(missing)} too; give the file as it is published"
            )
        rows = [{name: row[name] or "" for name in columns} for row in reader]
    seen: set[str] = set()
    for number, row in enumerate(rows, 1):
        if not row[text].strip() or not row[key] or row[key] in seen:
            raise ArgumentError(
                f"{path}: row {number} has {text} {row[text]!r} and {key} "
                f"{row[key]!r}; expected a text, and a {key} of its own. Mend the row"
            )
        seen.add(row[key])
    return rows
