# SPDX-License-Identifier: Apache-2.0
"""From words, examples or requests to an intervention that keeps away from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from cintervene.errors import ArgumentError
from cintervene.intervention.intervention import Intervention
from cintervene.methods.common.result import make_intervention, sweep_metrics
from cintervene.methods.pcr.config import (
    Concepts,
    Kind,
    PCRConfig,
)
from cintervene.methods.pcr.constraints import (
    ConstraintIndex,
    TokenConstraintIndex,
)
from cintervene.methods.pcr.forbidden import Forbidden
from cintervene.methods.pcr.layerwise import (
    LayerChange,
    Layerwise,
)
from cintervene.methods.pcr.point_constraints import PointConstraints
from cintervene.methods.pcr.strength import (
    SweepPoint,
    Tuning,
    WordLimits,
    knee,
)
from cintervene.methods.pcr.token_constraints import TokenConstraints
from cintervene.models.decoder import requested_layers
from cintervene.models.parts import ModelParts
from cintervene.models.precision import quick_products
from cintervene.prompts.calibration import (
    Calibration,
)
from cintervene.utils.clock import Clock
from cintervene.utils.progress import (
    Progress,
    counting,
)

__all__ = ["choose_layers", "resolved", "solve"]

TOKENWISE = ("contrast", "unembedding")
# Strengths that "auto" tries, weakest first: as many as make a curve, and then on until
# one reaches the effect or crosses the limits.
STRENGTHS = {
    **dict.fromkeys(TOKENWISE, (10.0, 13.0, 16.0, 18.0, 20.0, 24.0, 28.0, 32.0)),
    "activation": (1.05, 1.2, 1.5, 2.0, 2.5, 3.0),
    "difference": (4.0, 8.0, 12.0, 16.0, 20.0, 24.0, 32.0, 40.0),
}
CURVE = 3
# Where "auto" changes a model for concepts and requests, as a share of its depth: see
# docs/concepts.md.
DEPTH = {"examples": 0.28, "harmful": 0.51}
# What stands for each kind of thing inside the model, where nothing else is asked for.
CONCEPTS: dict[Kind, Concepts] = {
    "forbid": "contrast",
    "examples": "difference",
    "harmful": "difference",
}
# Price list for exceptions: larger where rows are many and of one group.
SLACK: dict[Kind, float] = {"forbid": 1.0, "examples": 10.0, "harmful": 10.0}


@quick_products()
def solve(
    model: nn.Module, tokenizer: Any, config: PCRConfig, progress: Progress
) -> Intervention:
    """Find the least change of a few layers that keeps outputs away from points.

    Each layer's constrained problem is solved to its proven optimum
    (`cintervene.pcr`); the rank of that change is then cut to `max_rank`.

    Parameters
    ----------
    model : nn.Module
        A causal language model of transformers.
    tokenizer
        Its tokenizer.
    config : PCRConfig
    progress : callable
        Called as ``progress(phase, done, total)``.

    Returns
    -------
    Intervention
        With `options`, and `metrics`: `strength`, `sweep`, `within_limits`, `layers`,
        `seconds`.

    Raises
    ------
    ArgumentError
        A layer is out of range, a word cannot be spelled, or the model refuses all
        requests.
    ModelError
        The model has no layers that can be changed.
    """
    forbidden = Forbidden.of(tokenizer, config)
    strengths = _strengths(config)
    parts = ModelParts.find(model)
    config = resolved(config, forbidden, parts.n_layers)
    clock = Clock()
    with clock.phase("prompts"):
        calibration = forbidden.gather(model, tokenizer, config, progress)
    with clock.phase("capture"):
        problem = _problem(parts, forbidden.kind, calibration, config, progress)
    with clock.phase("tune"):
        tuning = Tuning(parts, calibration, problem.targets[0].layer)
    limits = WordLimits(config.min_effect, config.max_kl, config.max_benign_loss)
    candidates = _sweep(problem, tuning, strengths, limits, clock, progress)
    best = knee([one.point for one in candidates], limits)
    changes = next(one.changes for one in candidates if one.point is best)
    points = [one.point for one in candidates]
    tried = sweep_metrics(points, best, best.strain(limits) <= 1.0)
    return make_intervention(
        model,
        [(change.target, change.update) for change in changes],
        config,
        {"strength": best.strength, **tried},
        clock,
        layers=[change.summary() for change in changes],
    )


def resolved(config: PCRConfig, forbidden: Forbidden, n_layers: int) -> PCRConfig:
    """Return the configuration with a value in each place of "auto", but `strength`.

    Raises
    ------
    ArgumentError
        A layer is out of range, or the concepts stand for words only.
    """
    words = forbidden.kind == "forbid"
    concepts = (
        CONCEPTS[forbidden.kind] if config.concepts == "auto" else config.concepts
    )
    if not words and concepts in TOKENWISE:
        raise ArgumentError(
            f"concepts: got {concepts!r}, which stands for a word; expected "
            f'"activation" or "difference" with {forbidden.kind}='
        )
    given: dict[str, Any] = {forbidden.kind: forbidden.texts}
    return replace(
        config,
        **given,
        layers=choose_layers(config.layers, n_layers, forbidden.kind),
        concepts=concepts,
        slack=SLACK[forbidden.kind] if config.slack == "auto" else config.slack,
    )


@dataclass(frozen=True, eq=False)
class _Candidate:
    """The changes found at one strength, and what they do."""

    changes: list[LayerChange]
    point: SweepPoint


def _sweep(
    problem: Layerwise,
    tuning: Tuning,
    strengths: Sequence[float],
    limits: WordLimits,
    clock: Clock,
    progress: Progress,
) -> list[_Candidate]:
    """Try strengths in order, until the limits are crossed or the effect is reached."""
    found: list[_Candidate] = []
    for index, strength in enumerate(strengths):
        progress("solving", index, len(strengths))
        with clock.phase("solve"):
            changes = problem.solve(strength)
        with clock.phase("tune"):
            point = tuning.measure(changes, strength)
        found.append(_Candidate(changes, point))
        enough = len(found) >= CURVE and point.effective(limits)
        if enough or point.strain(limits) > 1.0:
            break
    progress("solving", len(strengths), len(strengths))
    return found


def _problem(
    parts: ModelParts,
    kind: Kind,
    calibration: Calibration,
    config: PCRConfig,
    progress: Progress,
) -> Layerwise:
    """The constraints: on tokens, or on points among the outputs."""
    groups = (calibration.probes, calibration.benign, calibration.contrast)
    entered = counting(progress, "watching layers", sum(map(len, groups)))
    if config.concepts in TOKENWISE:
        return TokenConstraints(parts, *groups, config, entered)
    if kind == "forbid":
        pairs: ConstraintIndex = TokenConstraintIndex.of(calibration.probes)
    else:
        pairs = ConstraintIndex.grouped(
            calibration.probes, config.calibration.positions
        )
    return PointConstraints(parts, *groups, pairs, config, entered)


def _strengths(config: PCRConfig) -> tuple[float, ...]:
    """The strengths to try, in order."""
    if config.strength != "auto":
        return (float(config.strength),)
    concepts = CONCEPTS[config.kind] if config.concepts == "auto" else config.concepts
    return STRENGTHS[concepts]


def choose_layers(layers: object, n_layers: int, kind: Kind) -> list[int]:
    """Return the layers that PCR changes, for its parameter `layers`."""
    asked = requested_layers(layers, n_layers)
    if asked is not None:
        return asked
    if kind == "forbid":
        count = min(n_layers, max(2, round(n_layers / 15)))
        return list(range(n_layers - count, n_layers))
    return [int(DEPTH[kind] * n_layers)]
