# SPDX-License-Identifier: Apache-2.0
"""Results on stdout: tables for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

Row = Sequence[str]


def print_json(value: Any) -> None:
    """Print a value as one JSON document."""
    print(json.dumps(value, indent=2, allow_nan=False))


def table(head: Row, rows: Sequence[Row]) -> str:
    """Lay out rows of text: the first column to the left, all others to the right."""
    widths = [
        max(len(cell) for cell in column) for column in zip(head, *rows, strict=True)
    ]
    lines = []
    for row in (head, *rows):
        cells = [row[0].ljust(widths[0])]
        cells += [c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
