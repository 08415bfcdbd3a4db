# SPDX-License-Identifier: Apache-2.0
"""Changes that crossed the limits they were made within are not written unasked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cintervene.errors import InterventionError

if TYPE_CHECKING:
    from cintervene.intervention.intervention import Intervention

__all__ = ["allowed", "check_limits", "chosen_point", "crossed", "excessive"]

# By measure of a sweep: the option that limits it, and where the measure begins.
MEASURES = {
    "kl": ("max_kl", 0.0),
    "benign_ratio": ("max_benign_loss", 1.0),
    "false_refusals": ("max_false_refusals", 0.0),
}


def chosen_point(intervention: Intervention) -> Mapping[str, Any]:
    """The point of the sweep that was taken; empty without one."""
    sweep: Sequence[Mapping[str, Any]] = intervention.metrics.get("sweep", ())
    return next((point for point in sweep if point.get("chosen")), {})


def allowed(intervention: Intervention) -> dict[str, float]:
    """The most that measures of the chosen point may be, of those that have a limit."""
    options, point = intervention.options, chosen_point(intervention)
    return {
        measure: least + float(options[option])
        for measure, (option, least) in MEASURES.items()
        if measure in point and option in options
    }


def excessive(intervention: Intervention) -> list[str]:
    """The measures of the chosen point that are beyond their limits."""
    point = chosen_point(intervention)
    # So that no number at all is beyond it too.
    return [m for m, most in allowed(intervention).items() if not point[m] <= most]


def crossed(intervention: Intervention) -> str | None:
    """Say which limits a change crossed on the tuning split; None without any.

    Only what was measured counts: nothing is known of changes that were put together
    by hand, scaled or added.
    """
    if intervention.metrics.get("within_limits", True):
        return None
    point, found = chosen_point(intervention), []
    for measure in excessive(intervention):
        option, least = MEASURES[measure]
        found.append(
            f"{option}: got {point[measure] - least:.4g} on the tuning split, expected "
            f"{intervention.options[option]:g} at most"
        )
    return "; ".join(found) or "within_limits: got False, expected True"


def check_limits(intervention: Intervention, beyond_limits: bool) -> None:
    """Refuse to write a change that crossed the limits it was made within.

    Raises
    ------
    InterventionError
        It did, and `beyond_limits` is False.
    """
    found = None if beyond_limits else crossed(intervention)
    if found is not None:
        raise InterventionError(
            f"{found}; write it all the same with beyond_limits=True (--beyond-limits)"
        )
