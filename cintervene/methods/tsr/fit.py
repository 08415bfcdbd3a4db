# SPDX-License-Identifier: Apache-2.0
"""Some layers' changes from a problem of examples: found, measured, chosen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

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
from cintervene.methods.tsr.config import TSROptions
from cintervene.methods.tsr.problem import (
    ExampleBatch,
    SafeRegion,
)
from cintervene.models.decoder import (
    Decoder,
    asked_layers,
    find_decoder,
)
from cintervene.models.precision import quick_products
from cintervene.models.quantised import check_gradients
from cintervene.models.targets import Target, check_matrix, find_targets
from cintervene.models.unembedding import find_unembedding
from cintervene.prompts.refusal_examples import (
    Safe,
    prepare,
    safe_tokens,
)
from cintervene.utils.clock import Clock
from cintervene.utils.literals import Matrix
from cintervene.utils.progress import (
    Progress,
    counting,
)

__all__ = [
    "RefusalSweepPoint",
    "learn",
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
def learn(
    model: nn.Module,
    tokenizer: Any,
    region: Callable[..., SafeRegion],
    harmful: Sequence[str] | None,
    safe: Sequence[Safe] | None,
    layers: Literal["auto"] | Iterable[int],
    preserve: Iterable[str],
    told: dict[str, Any],
    limits: RefusalLimits,
    options: TSROptions,
    progress: Progress,
) -> Intervention:
    """Make examples of requests, and of them an intervention.

    Parameters
    ----------
    region : callable
        Makes the problem of model, targets, decoder, unembedding, examples, radius and
        options.
    harmful : sequence of str or None
        The package's own without it.
    safe : sequence of str or of sequence of int, or None
        See `prepare`.
    told : dict
        What the intervention shall say about its method, `radius` and `matrix`
        included.
    """
    check_matrix(told["matrix"])
    harmful, preserve = requested(harmful), list(preserve)
    decoder = find_decoder(model)
    unembedding = find_unembedding(model, decoder)
    check_gradients(model)
    clock = Clock()
    with clock.phase("prompts"):
        examples = prepare(
            model, tokenizer, harmful, safe, preserve, options.answers,
            options.answer_tokens, options.borderline, progress,
        )  # fmt: skip
    with clock.phase("layer"):
        targets = _targets(model, tokenizer, decoder, layers, told["matrix"], progress)
    with clock.phase("capture"):
        place = (model, targets, decoder, unembedding)
        problem = region(*place, examples, told["radius"], options)
        tune = ExampleBatch(*place, examples.tune_harmful, examples.tune_benign)
    refusals: Sequence[Safe] = safe or data.safe_refusals()
    openings = sorted({safe_tokens(tokenizer, one)[0] for one in refusals})
    told = {**told, "harmful": len(harmful), "preserve": len(preserve)}
    told |= asdict(limits)
    return _descend(model, problem, tune, openings, limits, told, clock, progress)


def _descend(
    model: nn.Module,
    problem: SafeRegion,
    tune: ExampleBatch,
    openings: Sequence[int],
    limits: RefusalLimits,
    options: dict[str, Any],
    clock: Clock,
    progress: Progress,
) -> Intervention:
    """Take the problem's steps and choose among multiples of what they lead to.

    Parameters
    ----------
    openings : sequence of int
        Tokens that begin a refusal.
    options : dict
        What the intervention shall say about how it was made.
    """
    report = counting(progress, "learning to refuse", problem.options.steps)
    steps = []
    with clock.phase("solve"), differentiable(model):
        for seen in problem.descend():
            steps.append(seen)
            report(1)
    report = counting(progress, "choosing the strength", len(STRENGTHS))
    sweep = []
    with clock.phase("tune"), torch.no_grad():
        before = _false_refusals(tune, openings, None)
        for strength in STRENGTHS:
            changes = [ball.change * strength for ball in problem.balls]
            sweep.append(_measure(problem, tune, openings, changes, strength, before))
            if sweep[-1].kl > limits.max_kl:
                report(len(STRENGTHS) - len(sweep) + 1)
                break
            report(1)
    best = choose(sweep, limits)
    changed = [(t, update * best.strength) for t, update in problem.updates]
    layers = [target.layer for target, _ in changed]
    return Intervention.of(
        model,
        changed,
        options={"layers": layers, **options, **asdict(problem.options)},
        metrics={
            "strength": best.strength,
            "sweep": [{**asdict(point), "chosen": point is best} for point in sweep],
            "within_limits": best.strain(limits) <= 1.0,
            "steps": steps,
            "layers": [summary(target, change) for target, change in changed],
            "seconds": clock.seconds,
        },
    )


def _targets(
    model: nn.Module,
    tokenizer: Any,
    decoder: Decoder,
    layers: Literal["auto"] | Iterable[int],
    matrix: Matrix,
    progress: Progress,
) -> list[Target]:
    """The projections to change: those asked for, or those of the best layers.

    Raises
    ------
    ArgumentError
        A layer is out of range, or none is given.
    ModelError
        One of them cannot be changed.
    """
    chosen = asked_layers(layers, len(decoder.layers))
    if chosen is None:
        return most_separating(model, tokenizer, decoder, matrix, progress)
    return find_targets(model, chosen, decoder, matrix)


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
