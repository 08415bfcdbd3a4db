# SPDX-License-Identifier: Apache-2.0
"""What methods return: an intervention with its options and what was measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from torch import nn

from cintervene.intervention.intervention import Intervention
from cintervene.methods.common.front import FrontPoint, offer
from cintervene.methods.config import MethodConfig
from cintervene.models.targets import Target, experts_of
from cintervene.solvers.update import LowRankUpdate
from cintervene.utils.clock import Clock

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["Trial", "make_chosen", "make_intervention"]

Updates: TypeAlias = Sequence[tuple[Target, LowRankUpdate]]


@dataclass(frozen=True, eq=False)
class Trial:
    """A change that was measured on the tuning split.

    Attributes
    ----------
    point : dataclass
        What was measured.
    within_limits : bool
        Whether it keeps the limits.
    updates : callable
        Returns the change.
    metrics : mapping
        What else there is to say of this one.
    layers : sequence of dict, optional
        See `make_intervention`.
    """

    point: DataclassInstance
    within_limits: bool
    updates: Callable[[], Updates]
    metrics: Mapping[str, Any] = field(default_factory=dict)
    layers: Sequence[Mapping[str, Any]] | None = None


def make_chosen(
    model: nn.Module,
    trials: Sequence[Trial],
    chosen: DataclassInstance,
    config: MethodConfig,
    clock: Clock,
    metrics: Mapping[str, Any] | None = None,
) -> Intervention:
    """The intervention of the point that was chosen; the others are offered.

    Parameters
    ----------
    model : nn.Module
    trials : sequence of Trial
        All that were tried.
    chosen : dataclass
        The point of one of them.
    config, clock
        See `make_intervention`.
    metrics : mapping, optional
        What there is to say of all of them.
    """

    def measures(of: DataclassInstance) -> list[dict[str, Any]]:
        return [{**asdict(one.point), "chosen": one.point is of} for one in trials]

    def made(trial: Trial) -> Intervention:
        tried = {
            "sweep": measures(trial.point),
            "within_limits": trial.within_limits,
        }
        whole = {**trial.metrics, **tried, **(metrics or {})}
        return make_intervention(
            model, trial.updates(), config, whole, clock, trial.layers
        )

    offer(
        [
            FrontPoint(of, trial.within_limits, partial(made, trial))
            for of, trial in zip(measures(chosen), trials, strict=True)
        ]
    )
    (best,) = [trial for trial in trials if trial.point is chosen]
    return made(best)


def make_intervention(
    model: nn.Module,
    changes: Updates,
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
    experts, left_alone = experts_of(model), {}
    if experts:
        kind = getattr(getattr(model, "config", None), "model_type", None)
        left_alone = {"experts_left_alone": {**experts, "model_type": kind}}
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
