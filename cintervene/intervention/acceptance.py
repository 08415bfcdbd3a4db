# SPDX-License-Identifier: Apache-2.0
"""Changes that crossed the limits they were made within are not written unasked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from cintervene.errors import ArgumentError, InterventionError

__all__ = [
    "Recorded", "allowed", "check_intervention", "check_limits", "chosen_point",
    "crossed", "excessive",
]  # fmt: skip

# By measure of a sweep: the option that limits it, and where the measure begins.
MEASURES = {
    "kl": ("max_kl", 0.0),
    "benign_ratio": ("max_benign_loss", 1.0),
    "false_refusals": ("max_false_refusals", 0.0),
}


class Recorded(Protocol):
    """A change with the record of how it was made and what was measured of it."""

    @property
    def options(self) -> Mapping[str, Any]:
        """How it was made, its limits among them."""

    @property
    def metrics(self) -> Mapping[str, Any]:
        """What was measured, perhaps with a `sweep` and `within_limits`."""


def chosen_point(change: Recorded) -> Mapping[str, Any]:
    """The point of the sweep that was taken; empty without one."""
    sweep: Sequence[Mapping[str, Any]] = change.metrics.get("sweep", ())
    return next((point for point in sweep if point.get("chosen")), {})


def allowed(change: Recorded) -> dict[str, float]:
    """The most that measures of the chosen point may be, of those that have a limit."""
    options, point = change.options, chosen_point(change)
    return {
        measure: least + float(options[option])
        for measure, (option, least) in MEASURES.items()
        if measure in point and option in options
    }


def excessive(change: Recorded) -> list[str]:
    """The measures of the chosen point that are beyond their limits."""
    point = chosen_point(change)
    # So that no number at all is beyond it too.
    return [m for m, most in allowed(change).items() if not point[m] <= most]


def crossed(change: Recorded) -> str | None:
    """Say which limits a change crossed on the tuning split; None without any.

    Only what was measured counts: nothing is known of changes that were put together
    by hand, scaled or added.
    """
    if change.metrics.get("within_limits", True):
        return None
    point, reasons = chosen_point(change), []
    for measure in excessive(change):
        option, least = MEASURES[measure]
        reasons.append(
            f"{option}: got {point[measure] - least:.4g} on the tuning split, expected "
            f"{change.options[option]:g} at most"
        )
    return "; ".join(reasons) or "within_limits: got False, expected True"


def check_intervention(change: object) -> None:
    """Refuse what is no intervention, such as the path of one.

    Raises
    ------
    ArgumentError
    """
    if not hasattr(change, "options"):
        raise ArgumentError(
            f"intervention: got {type(change).__name__}; expected an intervention. "
            "Read a file with cintervene.Intervention.load"
        )


def check_limits(change: Recorded, beyond_limits: bool) -> None:
    """Refuse to write a change that crossed the limits it was made within.

    Raises
    ------
    InterventionError
        It did, and `beyond_limits` is False.
    """
    check_intervention(change)
    reasons = None if beyond_limits else crossed(change)
    if reasons is not None:
        raise InterventionError(
            f"{reasons}; write it all the same with beyond_limits=True"
        )
