# SPDX-License-Identifier: Apache-2.0
"""Make a model refuse harmful requests: from prompts to an intervention.

Source: arXiv 2510.03567, towards the safe region (TSR).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import nn

from cintervene import data
from cintervene.errors import ArgumentError
from cintervene.models.clock import Clock
from cintervene.models.intervention import Intervention
from cintervene.models.lessons import Lessons, prepare
from cintervene.models.safe_region import Part, SafeRegion, TSROptions
from cintervene.models.separation import most_separating
from cintervene.models.set_loss import set_loss
from cintervene.models.targets import (
    Decoder,
    Target,
    find_decoder,
    find_targets,
    resolve_layers,
)
from cintervene.models.unembedding import find_unembedding
from cintervene.models.upper import differentiable
from cintervene.progress import Progress, counting, silent
from cintervene.update import LowRankUpdate

__all__ = ["RefusalPoint", "choose", "teach_refusal"]

# Shares of the change found that are measured on the tuning split.
STRENGTHS = (0.4, 0.6, 0.8, 1.0, 1.25, 1.6)


@dataclass(frozen=True)
class RefusalPoint:
    """A multiple of the change, and what it does on the tuning split.

    Attributes
    ----------
    strength : float
    refused : float
        Share of harmful requests with a refusal more likely than not, token by token.
    false_refusals : float
        The same of benign requests, where the answer begins, above the base model's.
    kl : float
        Nats a token between base and changed model on benign requests.
    """

    strength: float
    refused: float
    false_refusals: float
    kl: float

    def strain(self, max_kl: float, max_false_refusals: float) -> float:
        """Share of the limits that is used up; above 1 they are crossed."""
        return max(self.kl / max_kl, self.false_refusals / max_false_refusals)


def teach_refusal(
    model: nn.Module,
    tokenizer: Any,
    *,
    harmful: Sequence[str] | None = None,
    safe: Sequence[str] | None = None,
    layers: Literal["auto"] | Iterable[int] = "auto",
    radius: float = 0.07,
    preserve: Iterable[str] = (),
    max_kl: float = 0.003,
    max_false_refusals: float = 0.02,
    options: TSROptions | None = None,
    progress: Progress = silent,
) -> Intervention:
    """Find a small change of one layer that makes a model refuse harmful requests.

    The model is left as it was; give the result to `Intervention.apply`.

    Parameters
    ----------
    model : nn.Module
        A causal language model of transformers.
    tokenizer
        Its tokenizer.
    harmful : sequence of str, optional
        Requests to refuse; the package's own without it.
    safe : sequence of str, optional
        Refusals that are all as good: at each token of one, the loss is the negative
        log probability of all tokens with which one of them goes on.
    layers : "auto" or iterable of int
        The one layer whose down projection is changed. `"auto"` takes the one whose
        inputs tell harmful requests of the tuning split best from others.
    radius : float
        Largest size of the change, relative to the weight's, both in the norm of
        benign inputs.
    preserve : iterable of str
        Prompts to answer as before, besides the package's own.
    max_kl : float
        Drift allowed on benign requests of the tuning split, nats a token.
    max_false_refusals : float
        Share of those that may be refused beyond what the model did before.
    options : TSROptions, optional
        Details of the descent and of the norm.
    progress : callable, optional
        Called as ``progress(phase, done, total)``.

    Returns
    -------
    Intervention
        With `options`, and `metrics`: `strength`, `sweep`, `within_limits`, `steps`,
        `layers`, `seconds`.

    Raises
    ------
    ArgumentError
        An option is out of range, or there is nothing to refuse.
    ModelError
        The model has no layer that can be changed.
    """
    for name, value in (
        ("radius", radius),
        ("max_kl", max_kl),
        ("max_false_refusals", max_false_refusals),
    ):
        if not 0.0 < value < math.inf:
            raise ArgumentError(f"{name}: got {value}; expected a positive number")
    details = options or TSROptions()
    if harmful is None:
        harmful = [prompt.text for prompt in data.harmful_prompts("train")]
    decoder = find_decoder(model)
    clock = Clock()
    with clock.phase("prompts"):
        lessons = prepare(
            model, tokenizer, harmful, data.safe_refusals() if safe is None else safe,
            list(preserve), details.answers, details.answer_tokens, progress,
        )  # fmt: skip
    with clock.phase("layer"):
        target = _target(model, tokenizer, decoder, layers, progress)
    update, steps, sweep = _solve(
        model, target, decoder, lessons, radius, details, clock, progress
    )
    best = choose(sweep, max_kl, max_false_refusals)
    strain = best.strain(max_kl, max_false_refusals)
    change = update * best.strength
    return Intervention.of(
        model,
        [(target, change)],
        options={
            "method": "tsr",
            "layers": [target.layer],
            "harmful": len(harmful),
            "radius": radius,
            "max_kl": max_kl,
            "max_false_refusals": max_false_refusals,
            **asdict(details),
        },
        metrics={
            "strength": best.strength,
            "sweep": [{**asdict(p), "chosen": p is best} for p in sweep],
            "within_limits": strain <= 1.0,
            "steps": steps,
            "layers": [_summary(target, change)],
            "seconds": clock.seconds,
        },
    )


def _solve(
    model: nn.Module,
    target: Target,
    decoder: Decoder,
    lessons: Lessons,
    radius: float,
    options: TSROptions,
    clock: Clock,
    progress: Progress,
) -> tuple[LowRankUpdate, list[dict[str, float]], list[RefusalPoint]]:
    """The change found, what each step saw, and multiples of it measured."""
    unembedding = find_unembedding(model, decoder)
    with clock.phase("capture"):
        problem = SafeRegion(
            model, target, decoder, unembedding, lessons, radius, options
        )
        tune = Part(
            model, target, decoder, unembedding,
            lessons.tune_harmful, lessons.tune_benign,
        )  # fmt: skip
    report = counting(progress, "learning to refuse", options.steps)
    steps = []
    with clock.phase("solve"), differentiable(model):
        for seen in problem.descend():
            steps.append(seen)
            report(1)
    update = problem.update
    report = counting(progress, "choosing the strength", len(STRENGTHS))
    sweep = []
    with clock.phase("tune"), torch.no_grad():
        before = _refused(tune, lessons, None)[1]
        for strength in STRENGTHS:
            sweep.append(_measure(tune, lessons, update, strength, before))
            report(1)
    return update, steps, sweep


def _measure(
    tune: Part,
    lessons: Lessons,
    update: LowRankUpdate,
    strength: float,
    before: float,
) -> RefusalPoint:
    matrix = torch.from_numpy(update.matrix().T * strength).float()
    change = matrix.to(tune.device)
    refused, falsely = _refused(tune, lessons, change)
    kl = torch.cat(list(tune.divergences(change))).mean()
    return RefusalPoint(strength, refused, falsely - before, float(kl))


def _refused(
    tune: Part, lessons: Lessons, change: torch.Tensor | None
) -> tuple[float, float]:
    """Shares of harmful and benign lessons with a refusal more likely than not."""
    likely = math.log(2)
    refused = 0
    for batch, losses in tune.losses(change):
        within = (losses.cpu() <= likely).tolist()
        for sequence in batch.sequences:
            rows = batch.owners == sequence
            refused += all(w for w, own in zip(within, rows, strict=True) if own)
    openings = sorted({t for one in lessons.tune_harmful for t in one.sets[0]})
    falsely = 0
    for batch, logits in tune.benign_logits(change):
        losses = set_loss(logits, [openings] * len(logits))
        seen: set[int] = set()
        for owner, loss in zip(batch.owners.tolist(), losses.tolist(), strict=True):
            if owner not in seen:
                seen.add(owner)
                falsely += loss <= likely
    return refused / len(lessons.tune_harmful), falsely / len(lessons.tune_benign)


def choose(
    sweep: Sequence[RefusalPoint], max_kl: float, max_false_refusals: float
) -> RefusalPoint:
    """The least change that refuses most within the limits, or strains them least."""
    within = [p for p in sweep if p.strain(max_kl, max_false_refusals) <= 1.0]
    if within:
        return max(within, key=lambda point: (point.refused, -point.strength))
    return min(sweep, key=lambda point: point.strain(max_kl, max_false_refusals))


def _target(
    model: nn.Module,
    tokenizer: Any,
    decoder: Decoder,
    layers: Literal["auto"] | Iterable[int],
    progress: Progress,
) -> Target:
    if layers == "auto":
        return most_separating(model, tokenizer, decoder, progress)
    if isinstance(layers, str):
        raise ArgumentError(
            f'layers: got {layers!r}; expected "auto" or one layer index, e.g. [16]'
        )
    chosen = resolve_layers(layers, len(decoder.layers))
    if len(chosen) != 1:
        raise ArgumentError(
            f"layers: got {chosen}; expected one layer for this method, e.g. "
            f"[{chosen[0]}]"
        )
    return find_targets(model, chosen, decoder)[0]


def _summary(target: Target, change: LowRankUpdate) -> dict[str, Any]:
    weight = float(target.weight.detach().float().norm())
    return {
        "name": target.name,
        "layer": target.layer,
        "rank": change.rank,
        "relative_norm": change.norm / weight,
    }
