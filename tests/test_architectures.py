# SPDX-License-Identifier: Apache-2.0
"""Every decoder-only architecture of transformers works, or is refused by name."""

from __future__ import annotations

from collections.abc import Callable

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from support.architecture_table import COLUMNS, CRASH, NO, PAGE, row_of
from support.architectures import NAMES

# As many as the page is to say at least.
PROMISED = {
    "explain": 140, "pcr": 140, "apply": 140, "lora": 118, "gate": 90, "guard": 115,
}  # fmt: skip
# Guards, and gates that are solved and not only found, take most of the time: all are
# run with `--long`.
EVERY = 12
QUICK = tuple(column for column in COLUMNS if column != "guard")


def said() -> dict[str, dict[str, str]]:
    """What the page says: for each architecture the cells of its columns."""
    lines = [x for x in PAGE.read_text("utf-8").splitlines() if x.startswith("| ")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    return {name: dict(zip(COLUMNS, cells, strict=True)) for name, *cells in rows}


@pytest.mark.parametrize("name", NAMES)
def test_the_page_says_what_is_found(
    name: str, cases: Callable[[int, int], int], counted: Callable[[str, int], None]
) -> None:
    whole = NAMES.index(name) % cases(EVERY, 1) == 0
    columns = COLUMNS if whole else QUICK
    found, page = row_of(name, columns, solve_gate=whole), said()[name]
    assert {column: found.cells.get(column, NO) for column in columns} == {
        column: page[column] for column in columns
    }, f"run python tests/support/architecture_table.py; {found.reasons}"
    for column in columns:
        counted(f"architectures found to have {column}", found.works(column))


def test_as_many_as_promised() -> None:
    page = said()
    assert list(page) == list(NAMES)
    cells = [cell for row in page.values() for cell in row.values()]
    assert CRASH not in cells
    for column, least in PROMISED.items():
        assert sum(row[column] != NO for row in page.values()) >= least
