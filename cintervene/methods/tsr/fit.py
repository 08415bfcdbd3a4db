# SPDX-License-Identifier: Apache-2.0
"""Some layers' changes from a problem of examples: found, measured, chosen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from cintervene import data
from cintervene.activations.upper_layers import (
    Changes,
    differentiable,
)
from cintervene.intervention.intervention import Intervention
from cintervene.methods.common.layer_selection import most_separating
from cintervene.methods.common.sweep import (
    STRENGTHS,
    RefusalLimits,
    choose,
    requested,
    summary,
)
from cintervene.methods.config import DescentConfig
from cintervene.methods.tsr.problem import (
    ExampleBatch,
    SafeRegion,
)
from cintervene.models.decoder import (
    requested_layers,
)
from cintervene.models.parts import ModelParts
from cintervene.models.precision import quick_products
from cintervene.models.quantised import check_gradients
from cintervene.models.targets import Target
from cintervene.prompts.refusal_examples import (
    Safe,
    prepare,
    safe_tokens,
)
from cintervene.utils.clock import Clock
from cintervene.utils.progress import (
    Progress,
    counting,
)

__all__ = [
    "RefusalSweepPoint",
    "fit",
]


@dataclass(frozen=True)
class RefusalSweepPoint:
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

    def strain(self, limits: RefusalLimits) -> float:
        """Share of the limits that is used up; above 1 they are crossed."""
        return limits.strain(self.kl, self.false_refusals)


@quick_products()
def fit(
    model: nn.Module,
    tokenizer: Any,
    region: Callable[..., SafeRegion],
    config: DescentConfig,
    safe: Sequence[Safe] | None,
    progress: Progress,
) -> Intervention:
    """Make examples of requests, and of them an intervention.

    Parameters
    ----------
    region : callable
        Makes the problem of parts, targets, examples and config.
    config : DescentConfig
    safe : sequence of str or of sequence of int, or None
        See `prepare`.
    """
    harmful = requested(config.harmful)
    parts = ModelParts.find(model)
    check_gradients(model)
    clock = Clock()
    with clock.phase("prompts"):
        examples = prepare(
            model, tokenizer, harmful, safe, config.preserve, config.answers,
            config.answer_tokens, config.borderline, progress,
        )  # fmt: skip
    with clock.phase("layer"):
        targets = _targets(parts, tokenizer, config, progress)
    with clock.phase("capture"):
        problem = region(parts, targets, examples, config)
        tune = ExampleBatch(parts, targets, examples.tune_harmful, examples.tune_benign)
    refusals: Sequence[Safe] = safe or data.safe_refusals()
    openings = sorted({safe_tokens(tokenizer, one)[0] for one in refusals})
    return _descend(parts, problem, tune, openings, clock, progress)


def _descend(
    parts: ModelParts,
    problem: SafeRegion,
    tune: ExampleBatch,
    openings: Sequence[int],
    clock: Clock,
    progress: Progress,
) -> Intervention:
    """Take the problem's steps and choose among multiples of what they lead to.

    Parameters
    ----------
    openings : sequence of int
        Tokens that begin a refusal.
    """
    config = problem.config
    report = counting(progress, "learning to refuse", config.steps)
    steps = []
    with clock.phase("solve"), differentiable(parts.model):
        for seen in problem.descend():
            steps.append(seen)
            report(1)
    limits = RefusalLimits(config.max_kl, config.max_false_refusals)
    with clock.phase("tune"), torch.no_grad():
        sweep = _sweep(problem, tune, openings, limits, progress)
    best = choose(sweep, limits)
    changed = [(t, update * best.strength) for t, update in problem.updates]
    config = replace(config, layers=[target.layer for target, _ in changed])
    return Intervention.of(
        parts.model,
        changed,
        options=config.to_dict(private=False),
        metrics={
            "strength": best.strength,
            "sweep": [{**asdict(point), "chosen": point is best} for point in sweep],
            "within_limits": best.strain(limits) <= 1.0,
            "steps": steps,
            "layers": [summary(target, change) for target, change in changed],
            "seconds": clock.seconds,
        },
    )


def _sweep(
    problem: SafeRegion,
    tune: ExampleBatch,
    openings: Sequence[int],
    limits: RefusalLimits,
    progress: Progress,
) -> list[RefusalSweepPoint]:
    """Measure multiples of the change, until one drifts further than allowed."""
    report = counting(progress, "choosing the strength", len(STRENGTHS))
    sweep: list[RefusalSweepPoint] = []
    before = _false_refusals(tune, openings, None)
    for strength in STRENGTHS:
        changes = [ball.change * strength for ball in problem.balls]
        sweep.append(_measure(problem, tune, openings, changes, strength, before))
        if sweep[-1].kl > limits.max_kl:
            report(len(STRENGTHS) - len(sweep) + 1)
            break
        report(1)
    return sweep


def _targets(
    parts: ModelParts, tokenizer: Any, config: DescentConfig, progress: Progress
) -> list[Target]:
    """The projections to change: those asked for, or those of the best layers.

    Raises
    ------
    ArgumentError
        A layer is out of range, or none is given.
    ModelError
        One of them cannot be changed.
    """
    chosen = requested_layers(config.layers, parts.n_layers)
    if chosen is None:
        return most_separating(parts.decoder, tokenizer, config.matrix, progress)
    return parts.targets(chosen, config.matrix)


def _measure(
    problem: SafeRegion,
    tune: ExampleBatch,
    openings: Sequence[int],
    changes: Sequence[Tensor],
    strength: float,
    before: float,
) -> RefusalSweepPoint:
    pairs = zip(changes, tune.devices, strict=True)
    placed = [change.to(device) for change, device in pairs]
    reached = [problem.reached(losses) for losses in _by_lesson(tune, placed)]
    falsely = _false_refusals(tune, openings, placed) - before
    kl = torch.cat(list(tune.divergences(placed))).mean()
    return RefusalSweepPoint(strength, sum(reached) / len(reached), falsely, float(kl))


def _by_lesson(tune: ExampleBatch, changes: Changes) -> Iterator[Tensor]:
    """The losses of each harmful example's tokens."""
    for batch, losses in tune.losses(changes):
        for sequence in batch.sequences:
            yield losses[(batch.owners == sequence).to(losses.device)]


def _false_refusals(
    tune: ExampleBatch, openings: Sequence[int], changes: Changes
) -> float:
    """Share of benign examples whose greedy answer begins as a refusal."""
    falsely = total = 0
    for batch, logits in tune.benign_logits(changes):
        likely = torch.isin(
            logits.argmax(dim=-1), torch.tensor(openings).to(logits.device)
        )
        rows = [*enumerate(batch.owners.tolist())]
        first = {owner: at for at, owner in reversed(rows)}
        falsely += int(likely[list(first.values())].sum())
        total += len(first)
    return falsely / total
