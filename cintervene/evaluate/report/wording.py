# SPDX-License-Identifier: Apache-2.0
"""How reports and model cards write numbers, intervals and verdicts."""

from __future__ import annotations

from typing import Any

from cintervene.evaluate.statistics.intervals import Estimate
from cintervene.evaluate.words.goals import Verdict

__all__ = ["interval", "number", "value_text", "verdict_text"]


def number(value: float) -> str:
    """Write three significant digits."""
    if abs(value) >= 1e6:
        return f"{value:.2e}"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 0.1 else f"{value:#.3g}"


def interval(estimate: Estimate) -> str:
    """Write the ends of a confidence interval."""
    return f"[{number(estimate.low)}, {number(estimate.high)}]"


def verdict_text(verdict: Verdict) -> str:
    """Write what was measured and what was required."""
    side = "at least" if verdict.at_least else "at most"
    doubt = "" if verdict.certain else "; too close to be sure"
    value = verdict.measured.value
    measured = f"{value:+.1f}" if verdict.unit == "points" else number(value)
    return f"{measured} {verdict.unit} ({side} {verdict.limit:g}{doubt})"


def value_text(value: Any) -> str:
    """Write what an option or a record holds."""
    if isinstance(value, float):
        return number(value)
    if value is None:
        return "none"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
