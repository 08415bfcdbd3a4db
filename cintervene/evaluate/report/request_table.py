# SPDX-License-Identifier: Apache-2.0
"""A measurement of requests as a table: how often they are refused."""

from __future__ import annotations

from cintervene.evaluate.report.table import (
    Row,
    Section,
    change_row,
    kl_row,
    section_lines,
)
from cintervene.evaluate.report.wording import number
from cintervene.evaluate.requests.measure import RequestMeasurement, RequestOutcomes

__all__ = ["request_sections", "request_table"]


def request_table(measurement: RequestMeasurement) -> str:
    """What changed and what did not, as text for a terminal."""
    return "\n".join(section_lines(request_sections(measurement), measurement.level))


def request_sections(measurement: RequestMeasurement) -> list[Section]:
    """Format all measures."""
    sections = [_section(one) for one in measurement.asked]
    for mode, asked in measurement.by_mode.items():
        sections += [_section(one, f", {mode}") for one in asked]
    sections += _depths(measurement)
    row = kl_row(measurement.kl, measurement.kl_prompts)
    return [*sections, Section("Everyday answers", [row])]


def _depths(measurement: RequestMeasurement) -> list[Section]:
    """Begun answers at each depth, where they were looked at."""
    after = {one.depth: one for one in measurement.depth_after}
    rows = []
    for one in measurement.depth_before:
        if one.depth in after:
            new = after[one.depth]
            low, high = (f"{x:.1%}" for x in (new.outcomes.refused.low,
                                              new.outcomes.refused.high))  # fmt: skip
            rows += [
                Row(
                    f"refused after {one.depth} tokens, {one.outcomes.total}",
                    f"{one.outcomes.refused.value:.1%}",
                    f"{new.outcomes.refused.value:.1%}", "", f"[{low}, {high}]",
                ),
                Row(
                    "  rank of the next token", number(one.rank), number(new.rank),
                    "", "",
                ),
            ]  # fmt: skip
    return [Section("Harmful answers that were begun", rows)] if rows else []


def _section(one: RequestOutcomes, mode: str = "") -> Section:
    rows = [
        change_row("refused", one.refused.rate),
        change_row("broken", one.broken.rate),
    ]
    if one.turned is not None:
        rows.insert(1, change_row("  refused, then helped", one.turned))
    return Section(f"{one.kind[0].upper()}{one.kind[1:]}{mode} ({one.requests})", rows)
