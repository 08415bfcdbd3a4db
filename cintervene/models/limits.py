# SPDX-License-Identifier: Apache-2.0
"""Changes that crossed the limits they were made within are not written unasked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cintervene.errors import InterventionError

if TYPE_CHECKING:
    from cintervene.models.intervention import Intervention

__all__ = ["check_limits", "crossed"]

# By option: what of the sweep it limits, and where that measure begins.
MEASURES = {
    "max_kl": ("kl", 0.0),
    "max_benign_loss": ("benign_ratio", 1.0),
    "max_false_refusals": ("false_refusals", 0.0),
}


def crossed(intervention: Intervention) -> str | None:
    """Say which limits a change crossed on the tuning split; None without any.

    Only what was measured counts: nothing is known of changes that were put together
    by hand, scaled or added.
    """
    options, metrics = intervention.options, intervention.metrics
    if metrics.get("within_limits", True):
        return None
    sweep: Sequence[Mapping[str, Any]] = metrics.get("sweep", ())
    chosen = next((point for point in sweep if point.get("chosen")), {})
    found = []
    for name, (measure, least) in MEASURES.items():
        if name not in options or measure not in chosen:
            continue
        value, limit = chosen[measure] - least, options[name]
        # So that no number at all is beyond it too.
        if not value <= limit:
            found.append(
                f"{name}: got {value:.4g} on the tuning split, expected {limit:g} at "
                "most"
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
