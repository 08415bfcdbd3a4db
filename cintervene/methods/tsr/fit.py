# SPDX-License-Identifier: Apache-2.0
"""Some layers' changes from a problem of examples: found, measured, chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from cintervene import data
from cintervene.activations.upper_layers import Changes, UpperBatch
from cintervene.intervention.intervention import Intervention
from cintervene.methods.common.descent import take_steps
from cintervene.methods.common.layer_selection import most_separating
from cintervene.methods.common.objectives import by_example
from cintervene.methods.common.result import Trial, make_chosen
from cintervene.methods.common.sweep import (
    STRENGTHS,
    RefusalLimits,
    RefusalPoint,
    mildest_within,
)
from cintervene.methods.config import DescentConfig
from cintervene.methods.tsr.examples import RefusalExamples, prepare
from cintervene.methods.tsr.problem import ExampleBatch, SafeRegion
from cintervene.models.decoder import requested_layers
from cintervene.models.parts import ModelParts
from cintervene.models.precision import quick_products
from cintervene.models.quantised import check_gradients
from cintervene.models.targets import Target
from cintervene.prompts.refusal_examples import refusal_tokens
from cintervene.prompts.refusals import Refusal
from cintervene.solvers.update import LowRankUpdate
from cintervene.utils.clock import Clock
from cintervene.utils.progress import Progress, counting

__all__ = ["RefusalSweepPoint", "fit"]


@dataclass(frozen=True)
class RefusalSweepPoint(RefusalPoint):
    """A multiple of the change, and what it does on the tuning split.

    Attributes
    ----------
    strength : float
    refused : float
        Share of harmful requests for which what was asked is reached: see `reached` of
        the problem.
    false_refusals : float
        Share of benign requests whose greedy answer begins as a refusal, above the base
        model's.
    kl : float
        Nats a token between base and changed model on benign requests.
    """

    strength: float
    refused: float
    false_refusals: float
    kl: float

    @property
    def boldness(self) -> float:
        """Orders points by how much is changed."""
        return self.strength


# What the steps measured, the multiples, and the changes.
_Descended = tuple[
    list[dict[str, Any]], list[RefusalSweepPoint], list[tuple[Target, LowRankUpdate]]
]


@quick_products()
def fit(
    model: nn.Module,
    tokenizer: Any,
    region: Callable[..., SafeRegion],
    config: DescentConfig,
    safe: Sequence[Refusal] | None,
    progress: Progress,
) -> Intervention:
    """Make examples of requests, and of them an intervention.

    Parameters
    ----------
    model : nn.Module
    tokenizer
    region : callable
        Makes the problem of parts, targets, examples and config.
    config : DescentConfig
    safe : sequence of Refusal or None
        See `prepare`.
    progress : callable
    """
    parts = ModelParts.find(model)
    check_gradients(model)
    clock = Clock()
    with clock.phase("layer"):
        targets = _targets(parts, tokenizer, config, progress)
    with clock.phase("prompts"):
        examples = prepare(model, tokenizer, config, safe, progress)
    refusals: Sequence[Refusal] = safe or data.safe_refusals()
    openings = sorted({refusal_tokens(tokenizer, one)[0] for one in refusals})
    steps, sweep, updates = _descended(
        parts, targets, examples, region, config, openings, clock, progress
    )
    limits = RefusalLimits(config.max_kl, config.max_false_refusals)
    best = mildest_within(sweep, limits)

    def times(strength: float) -> list[tuple[Target, LowRankUpdate]]:
        return [(target, update * strength) for target, update in updates]

    trials = [
        Trial(
            point,
            point.strain(limits) <= 1.0,
            partial(times, point.strength),
            {"strength": point.strength},
        )
        for point in sweep
    ]
    config = replace(config, layers=[target.layer for target in targets])
    return make_chosen(model, trials, best, config, clock, {"steps": steps})


def _targets(
    parts: ModelParts, tokenizer: Any, config: DescentConfig, progress: Progress
) -> list[Target]:
    """The projections to change: those requested, or those of the best layers.

    Raises
    ------
    ArgumentError
        A layer is out of range, or none is given.
    ModelError
        One of them cannot be changed.
    """
    layers = requested_layers(config.layers, parts.n_layers)
    if layers is None:
        return most_separating(parts.decoder, tokenizer, config.matrix, progress)
    return parts.targets(layers, config.matrix)


def _descended(
    parts: ModelParts,
    targets: Sequence[Target],
    examples: RefusalExamples,
    region: Callable[..., SafeRegion],
    config: DescentConfig,
    openings: Sequence[int],
    clock: Clock,
    progress: Progress,
) -> _Descended:
    """Take a problem's steps and measure multiples of what they lead to.

    The problem, which holds norms and balls, is gone afterwards.
    """
    with clock.phase("capture"):
        problem = region(parts, targets, examples, config)
        tune = ExampleBatch(parts, targets, examples.tune_harmful, examples.tune_benign)
    with clock.phase("solve"):
        steps = take_steps(parts.model, problem.descend(), config.steps, progress)
    limits = RefusalLimits(config.max_kl, config.max_false_refusals)
    with clock.phase("tune"), torch.no_grad():
        sweep = _Tuning(problem, tune, openings).sweep(limits, progress)
    return steps, sweep, problem.updates


class _Tuning:
    """Measures multiples of the change that the steps lead to on the tuning split.

    Parameters
    ----------
    problem : SafeRegion
        After its steps.
    examples : ExampleBatch
        Of the tuning split.
    openings : sequence of int
        Tokens that begin a refusal.
    """

    def __init__(
        self, problem: SafeRegion, examples: ExampleBatch, openings: Sequence[int]
    ) -> None:
        self._problem, self._examples, self._openings = problem, examples, openings

    def sweep(
        self, limits: RefusalLimits, progress: Progress
    ) -> list[RefusalSweepPoint]:
        """Measure multiples, until one drifts further than allowed."""
        report = counting(progress, "choosing the strength", len(STRENGTHS))
        points: list[RefusalSweepPoint] = []
        base = self._refusing(None)
        for strength in STRENGTHS:
            points.append(self._measure(strength, base))
            if points[-1].kl > limits.max_kl:
                report(len(STRENGTHS) - len(points) + 1)
                break
            report(1)
        return points

    def _measure(self, strength: float, base: float) -> RefusalSweepPoint:
        """What a multiple does; `base` is the base model's share of refusals."""
        examples = self._examples
        changes = [
            (change * strength).to(device)
            for change, device in zip(
                self._problem.changes, examples.devices, strict=True
            )
        ]

        def refused(_number: int, batch: UpperBatch) -> list[bool]:
            parts = by_example(batch, examples.losses(batch, changes))
            return [self._problem.reached(losses) for _, losses in parts]

        def drift(number: int, _batch: UpperBatch) -> Tensor:
            return examples.divergences(number, changes)

        found = examples.harmful.deal("refusals", refused)
        reached = [one for _, of_batch in found for one in of_batch]
        false_refusals = self._refusing(changes) - base
        divergences = [one for _, one in examples.benign.deal("divergences", drift)]
        kl = torch.cat(divergences).mean()
        return RefusalSweepPoint(
            strength, sum(reached) / len(reached), false_refusals, float(kl)
        )

    def _refusing(self, changes: Changes) -> float:
        """Share of benign examples whose greedy answer begins as a refusal."""
        examples = self._examples

        def refusing(_number: int, batch: UpperBatch) -> tuple[int, int]:
            logits = examples.benign_logits(batch, changes)
            opening = torch.isin(
                logits.argmax(dim=-1), torch.tensor(self._openings).to(logits.device)
            )
            rows = [*enumerate(batch.owners.tolist())]
            first = {owner: row for row, owner in reversed(rows)}
            return int(opening[list(first.values())].sum()), len(first)

        counts = [one for _, one in examples.benign.deal("false refusals", refusing)]
        return sum(some for some, _ in counts) / sum(every for _, every in counts)
