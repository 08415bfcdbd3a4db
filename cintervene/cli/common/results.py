# SPDX-License-Identifier: Apache-2.0
"""What has to be reached for a command to end with 0."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from cintervene.evaluate import Goals, WordMeasurement, verdicts
from cintervene.intervention.intervention import Intervention


def asked_goals(arguments: Namespace) -> Goals:
    """Return the goals that the options name."""
    return Goals(
        forbidden_ratio=arguments.min_effect,
        kl=arguments.max_kl,
        benign_loss=arguments.max_benign_loss,
        obedience_loss=arguments.max_obedience_loss,
    )


def tuning_reached(intervention: Intervention, goals: Goals) -> bool:
    """Tell whether the goals were reached while tuning, where nothing else is known."""
    point = next(p for p in intervention.metrics["sweep"] if p["chosen"])
    return bool(
        point["forbidden_ratio"] >= goals.forbidden_ratio
        and point["kl"] <= goals.kl
        and point["benign_ratio"] - 1.0 <= goals.benign_loss
    )


def verdict_list(found: WordMeasurement, goals: Goals) -> list[dict[str, Any]]:
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
        for verdict in verdicts(found, goals)
    ]
