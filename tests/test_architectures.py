# SPDX-License-Identifier: Apache-2.0
"""Every decoder-only architecture of transformers works, or is refused by name."""

from __future__ import annotations

from collections.abc import Callable

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from support.architecture_table import COLUMNS, PAGE, row_of
from support.architectures import NAMES

PROMISED = 75
# Gates and guards take most of the time: all are run with `--long`.
GATED_EVERY = 12


def said() -> dict[str, dict[str, str]]:
    """What the page says: for each architecture the cells of its columns."""
    lines = [x for x in PAGE.read_text("utf-8").splitlines() if x.startswith("| ")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    return {name: dict(zip(COLUMNS, cells, strict=True)) for name, *cells in rows}


@pytest.mark.parametrize("name", NAMES)
def test_the_page_says_what_is_found(
    name: str, cases: Callable[[int, int], int]
) -> None:
    every = NAMES.index(name) % cases(GATED_EVERY, 1) == 0
    columns = COLUMNS if every else COLUMNS[:4]
    found = row_of(name, columns).cells
    page = said()[name]
    assert {column: found.get(column, "no") for column in columns} == {
        column: page[column] for column in columns
    }, "run python tests/support/architecture_table.py and look at what has changed"


def test_as_many_as_promised(counted: Callable[[str, int], None]) -> None:
    page = said()
    assert list(page) == list(NAMES)
    for column in COLUMNS:
        works = sum(cells[column] != "no" for cells in page.values())
        counted(f"architectures on which {column} works", works)
        assert works >= PROMISED or column not in ("explain", "pcr", "apply", "lora")
