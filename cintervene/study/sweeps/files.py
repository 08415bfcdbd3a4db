# SPDX-License-Identifier: Apache-2.0
"""The files of a sweep: a table, a page and a picture of the front."""

from __future__ import annotations

import csv
import io
import json
import shlex
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import Any

from cintervene.evaluate.report.blocks import (
    Block,
    Code,
    Mark,
    Picture,
    Program,
    Section,
    Table,
)
from cintervene.evaluate.report.html import html_page
from cintervene.intervention.hub import FILE
from cintervene.study.sweeps.result import COLUMNS, Sweep
from cintervene.study.sweeps.rows import SweepRow
from cintervene.utils.escaping import csv_cell
from cintervene.utils.exchange import write_together

__all__ = ["as_csv", "sweep_content", "write_sweep"]

PICTURE = "front"


def write_sweep(found: Sweep, model: str) -> None:
    """Write ``table.csv``, ``table.json``, ``report.html`` and ``front.png``.

    They replace those of the same names all together or not at all. The picture needs
    the extra `plot` (matplotlib).

    Parameters
    ----------
    found : Sweep
    model : str
        As the page calls it.

    Raises
    ------
    OSError
        A file cannot be written.
    """
    drawn: dict[str, str] = {}
    pictures: dict[str, bytes] = {}
    if find_spec("matplotlib") is not None:
        from cintervene.study.sweeps.plot import front_pictures

        drawn[PICTURE], pictures[f"{PICTURE}.png"] = front_pictures(found)
    files = {
        "table.csv": as_csv(found),
        "table.json": json.dumps(sweep_content(found), ensure_ascii=False, indent=1),
        "report.html": html_page(
            f"Sweep of {model}", _about(found), list(_sections(found, model)), drawn
        ),
    }
    encoded = {name: text.encode("utf-8", "replace") for name, text in files.items()}
    write_together(found.directory, encoded | pictures)


def sweep_content(found: Sweep) -> dict[str, Any]:
    """Return what ``table.json`` holds."""
    front = found.front
    rows = [{**row.to_dict(), "front": row in front} for row in found.rows]
    return {"split": found.split, "rows": rows}


def as_csv(found: Sweep) -> str:
    """Write the rows as a CSV table with a header, ends of intervals in own columns."""
    stream, front = io.StringIO(), found.front
    records = [{**_flat(row), "front": row in front} for row in found.rows]
    writer = csv.DictWriter(stream, list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return stream.getvalue()


def _flat(row: SweepRow) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in asdict(row).items():
        if name in ("first", "later", "benign", "kl"):
            for end in ("value", "low", "high"):
                column = name if end == "value" else f"{name}_{end}"
                flat[column] = None if value is None else value[end]
        else:
            flat[name] = csv_cell(value) if isinstance(value, str) else value
    return flat


def _about(found: Sweep) -> str:
    written = datetime.now(UTC).isoformat(timespec="seconds")
    return f"{len(found.rows)} settings, written {written}"


def _sections(found: Sweep, model: str) -> Iterator[Section]:
    caption = "Effect against drift; a line joins the settings on the front"
    notes = list(found.notes())
    yield Section("Front", [Picture(PICTURE, caption), *_table(found, True)])
    yield Section("All settings", [*_table(found, False), *notes])
    yield Section("Use", list(_use(found, model)))


def _table(found: Sweep, of_front: bool) -> Iterator[Block]:
    front = found.front
    shown = front if of_front else found.rows
    right = [place for place, one in enumerate(COLUMNS) if one.right]
    rows = [
        [
            *(column.text(row) for column in COLUMNS),
            Mark("on the front", "good") if row in front else "",
            Code(f"{row.name}/{FILE}"),
        ]
        for row in shown
    ]
    yield Table([*(one.title for one in COLUMNS), "", "file"], rows, right)


def _use(found: Sweep, model: str) -> Iterator[Block]:
    first = found.front[0]
    place = shlex.quote(f"{first.name}/{FILE}")
    beyond = "" if first.within_limits else " --beyond-limits"
    yield "A setting is measured on held-out data, and applied, like any intervention:"
    yield Program(
        f"cintervene evaluate --model {shlex.quote(model)} --intervention {place} "
        f"--out measured\ncintervene apply --model {shlex.quote(model)} "
        f"--intervention {place}{beyond} --out changed"
    )
    crossed = sum(not row.within_limits for row in found.rows)
    if crossed:
        yield (
            f"{crossed} settings crossed the limits of their method on texts set "
            "aside; `apply` takes these with `--beyond-limits` alone."
        )
