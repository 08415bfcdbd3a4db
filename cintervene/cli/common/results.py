# SPDX-License-Identifier: Apache-2.0
"""What has to be reached for a command to end with 0, and what was tried for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cintervene.evaluate import Goals, WordMeasurement, verdicts
from cintervene.evaluate.report.sweep_columns import shown_columns
from cintervene.intervention.acceptance import chosen_point, crossed
from cintervene.intervention.intervention import Intervention

__all__ = ["sweep_rows", "sweep_table", "tuning_reached", "verdict_list"]


def tuning_reached(intervention: Intervention) -> bool:
    """Tell whether goals were reached while tuning, where nothing else is known."""
    effect = chosen_point(intervention).get("forbidden_ratio")
    least = intervention.options.get("min_effect")
    effective = effect is None or least is None or effect >= least
    return effective and crossed(intervention) is None


def verdict_list(measurement: WordMeasurement, goals: Goals) -> list[dict[str, Any]]:
    """Return the goals as JSON has them."""
    return [
        {
            "goal": verdict.name,
            "measured": verdict.measured.value,
            "low": verdict.measured.low,
            "high": verdict.measured.high,
            "unit": verdict.unit,
            "limit": verdict.limit,
            "at_least": verdict.at_least,
            "reached": verdict.reached,
        }
        for verdict in verdicts(measurement, goals)
    ]


def sweep_table(sweep: Sequence[Mapping[str, Any]]) -> str:
    """The strengths tried, on texts set aside; empty without any."""
    if not sweep:
        return ""
    head, *rows = sweep_rows(sweep)
    marked = [
        row + ("  chosen" if point["chosen"] else "")
        for row, point in zip(rows, sweep, strict=True)
    ]
    return "\n".join(["", head, *marked])


def sweep_rows(sweep: Sequence[Mapping[str, Any]]) -> list[str]:
    """The heads of the columns, and a row for each strength that was tried.

    Parameters
    ----------
    sweep : sequence of mapping
        At least one.
    """
    columns = shown_columns(sweep[0])
    lines = ["  ".join(column.title for column in columns)]
    for point in sweep:
        cells = [format(c.text(point), f">{len(c.title)}") for c in columns]
        lines.append("  ".join(cells))
    return lines
