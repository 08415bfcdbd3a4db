# SPDX-License-Identifier: Apache-2.0
"""A measurement of requests as a table: how often they are refused."""

from __future__ import annotations

from cintervene.evaluate.report.table import Section, change_row, kl_row, section_lines
from cintervene.evaluate.requests.measure import RequestMeasurement, RequestOutcomes

__all__ = ["request_table"]


def request_table(measurement: RequestMeasurement) -> str:
    """What changed and what did not, as text for a terminal."""
    sections = [_section(one) for one in measurement.asked]
    for mode, asked in measurement.by_mode.items():
        sections += [_section(one, f", {mode}") for one in asked]
    row = kl_row(measurement.kl, measurement.kl_prompts)
    drift = Section("Everyday answers", [row])
    return "\n".join(section_lines([*sections, drift], measurement.level))


def _section(one: RequestOutcomes, mode: str = "") -> Section:
    rows = [
        change_row("refused", one.refused.rate),
        change_row("broken", one.broken.rate),
    ]
    return Section(f"{one.kind[0].upper()}{one.kind[1:]}{mode} ({one.requests})", rows)
