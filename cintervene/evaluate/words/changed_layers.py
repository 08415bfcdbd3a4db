# SPDX-License-Identifier: Apache-2.0
"""What an intervention changes in each layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cintervene.evaluate.words.records import Layer
from cintervene.intervention.edit import Edit
from cintervene.intervention.intervention import Intervention

__all__ = ["changed_layers"]


def changed_layers(intervention: Intervention) -> list[Layer]:
    """Return a record of each changed weight, in the order of the layers."""
    recorded = {
        entry.get("name"): entry for entry in intervention.metrics.get("layers", [])
    }
    edits = sorted(intervention.edits.items(), key=lambda item: item[1].layer)
    return [_layer(name, edit, recorded.get(name, {})) for name, edit in edits]


def _layer(name: str, edit: Edit, recorded: Mapping[str, Any]) -> Layer:
    return Layer(
        name=name,
        layer=edit.layer,
        rank=edit.update.rank,
        relative_norm=edit.relative_norm,
        asked=recorded.get("asked"),
        reached=recorded.get("reached_rounded"),
        shortfall=recorded.get("shortfall"),
    )
