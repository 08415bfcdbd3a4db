# SPDX-License-Identifier: Apache-2.0
"""What methods return: an intervention with its options and what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from torch import nn

from cintervene.intervention.intervention import Intervention
from cintervene.methods.config import MethodConfig
from cintervene.models.targets import Target, experts_of
from cintervene.solvers.update import LowRankUpdate
from cintervene.utils.clock import Clock

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["make_intervention", "sweep_metrics"]


def sweep_metrics(
    sweep: Sequence[DataclassInstance], chosen: DataclassInstance, within_limits: bool
) -> dict[str, Any]:
    """What was tried on the tuning split, and what was chosen.

    Parameters
    ----------
    sweep : sequence of dataclass
        What was measured of each change.
    chosen : dataclass
        One of them.
    within_limits : bool
        Whether it keeps the limits.
    """
    return {
        "sweep": [{**asdict(point), "chosen": point is chosen} for point in sweep],
        "within_limits": within_limits,
    }


def make_intervention(
    model: nn.Module,
    changes: Sequence[tuple[Target, LowRankUpdate]],
    config: MethodConfig,
    metrics: Mapping[str, Any],
    clock: Clock,
    layers: Sequence[Mapping[str, Any]] | None = None,
) -> Intervention:
    """The intervention that a method found.

    Parameters
    ----------
    model : nn.Module
    changes : sequence of (Target, LowRankUpdate)
    config : MethodConfig
        Layers and all else that was "auto" resolved.
    metrics : dict
        What was chosen, and what was seen on the way.
    clock : Clock
    layers : sequence of dict, optional
        What is said of each change; by default name, layer, rank and norm.
    """
    if layers is None:
        layers = [_summary(target, update) for target, update in changes]
    experts = experts_of(model)
    left_alone = {"experts_left_alone": experts} if experts else {}
    return Intervention.of(
        model,
        changes,
        options=config.to_dict(private=False),
        metrics={
            **metrics, **left_alone, "layers": list(layers), "seconds": clock.seconds,
        },
    )  # fmt: skip


def _summary(target: Target, change: LowRankUpdate) -> dict[str, Any]:
    """What is said of the change of one weight."""
    weight = float(target.weight.detach().float().norm())
    return {
        "name": target.name,
        "layer": target.layer,
        "rank": change.rank,
        "relative_norm": change.norm / weight,
    }
