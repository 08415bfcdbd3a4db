# SPDX-License-Identifier: Apache-2.0
"""Make a model refuse by a few neurons of one layer: from prompts to an intervention.

The neurons of a gated MLP that do least are given other rows and columns. Their gates
are linear detectors of harmful requests, so that at all other tokens the activation
function is closed and nothing is added; only what they add where they are open has to
be learnt by descent.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any, Literal

import torch
from torch import nn

from cintervene import data
from cintervene.activations.upper_layers import differentiable
from cintervene.errors import ArgumentError
from cintervene.intervention.intervention import Intervention
from cintervene.methods.common.layer_selection import most_separating
from cintervene.methods.common.sweep import (
    RefusalLimits,
    choose,
    requested,
    summary,
)
from cintervene.methods.gate.config import GateOptions
from cintervene.methods.gate.descent import (
    GateDescent,
    GateSweepPoint,
)
from cintervene.methods.gate.examples import prepare
from cintervene.methods.gate.gated_mlp import find_gated_mlp
from cintervene.methods.gate.gates import Thresholds
from cintervene.models.decoder import (
    Decoder,
    asked_layers,
    find_decoder,
)
from cintervene.models.precision import quick_products
from cintervene.models.quantised import check_gradients
from cintervene.models.unembedding import find_unembedding
from cintervene.prompts.spelling import encode_text
from cintervene.utils.clock import Clock
from cintervene.utils.progress import (
    Progress,
    counting,
    silent,
)
from cintervene.utils.validation import check_positive

__all__ = ["GateOptions", "gate_refusals"]

# Log odds that are tried, boldest first.
THRESHOLDS = (-0.5, 0.0, 0.5, 1.0, 2.0)
# Requests of each kind to fit to and to judge on where a layer is chosen: fewer do not
# tell it from its neighbours.
COMPARED = (250, 50)


@quick_products()
def gate_refusals(
    model: nn.Module,
    tokenizer: Any,
    *,
    harmful: Sequence[str] | None = None,
    refusal: str | None = None,
    layers: Literal["auto"] | Iterable[int] = "auto",
    preserve: Iterable[str] = (),
    max_kl: float = 0.05,
    max_false_refusals: float = 0.04,
    thresholds: Literal["auto"] | tuple[float, float] = "auto",
    options: GateOptions | None = None,
    progress: Progress = silent,
) -> Intervention:
    """Give a model a few neurons that recognise harmful requests and refuse them.

    The model is left as it was; give the result to `Intervention.apply`.

    Parameters
    ----------
    model : nn.Module
        A causal language model of transformers with gated MLPs that nothing follows
        (Llama, Mistral, Qwen, Gemma and others built so).
    tokenizer
        Its tokenizer.
    harmful : sequence of str, optional
        Requests to refuse; the package's own without it.
    refusal : str, optional
        What to say; one of the package's own without it. Best is one with whose first
        word the model begins no other answer.
    layers : "auto" or iterable of int
        The one layer that is changed; `"auto"` takes that whose MLP's inputs tell
        harmful requests of the tuning split best from others.
    preserve : iterable of str
        Prompts to answer as before, besides the package's own.
    max_kl : float
        RefusalLimits allowed on benign requests of the tuning split, nats a token.
    max_false_refusals : float
        Share of those that may be refused beyond what the model did before.
    thresholds : "auto" or (float, float)
        Log odds at which neurons open where an answer begins, and in answers that were
        begun: the lower, the more is refused. `"auto"` tries several on the tuning
        split.
    options : GateOptions, optional
        Details.
    progress : callable, optional
        Called as ``progress(phase, done, total)``.

    Returns
    -------
    Intervention
        Of the gate, up and down projections of one MLP, with `options`, and `metrics`:
        `opening`, `answering`, `sweep`, `within_limits`, `steps`, `layers`, `seconds`.

    Raises
    ------
    ArgumentError
        An option is out of range, or there is nothing to refuse.
    ModelError
        The MLP of the layer is not gated, or cannot be changed.
    """
    check_positive(max_kl=max_kl, max_false_refusals=max_false_refusals)
    fixed = _fixed(thresholds)
    options = options or GateOptions()
    harmful, preserve = requested(harmful), list(preserve)
    refusal = data.safe_refusals()[0] if refusal is None else refusal
    decoder = find_decoder(model)
    unembedding = find_unembedding(model, decoder)
    check_gradients(model)
    clock = Clock()
    with clock.phase("layer"):
        layer = _layer(model, tokenizer, decoder, layers, progress)
        mlp = find_gated_mlp(model, layer, decoder)
    with clock.phase("prompts"):
        examples = prepare(
            model, tokenizer, harmful, refusal, preserve, options.benign,
            options.answer_tokens, progress,
        )  # fmt: skip
    with clock.phase("capture"):
        problem = GateDescent(
            model, mlp, decoder, unembedding, examples, options, progress
        )
    with clock.phase("detectors"):
        problem.fit()
    report = counting(progress, "learning to refuse", options.steps)
    steps = []
    with clock.phase("solve"), differentiable(model):
        for seen in problem.descend():
            steps.append(seen)
            report(1)
    openings = [encode_text(tokenizer, gap + refusal)[0] for gap in ("", " ")]
    limits = RefusalLimits(max_kl, max_false_refusals)
    with clock.phase("tune"), torch.no_grad():
        sweep = _sweep(problem, openings, limits, fixed, progress)
    best = choose(sweep, limits)
    updates = problem.updates(best.thresholds)
    return Intervention.of(
        model,
        updates,
        options={
            "method": "gate", "layers": [layer], "refusal": refusal,
            "harmful": len(harmful), "preserve": len(preserve), "max_kl": max_kl,
            "max_false_refusals": max_false_refusals, "thresholds": thresholds,
            **asdict(options),
        },
        metrics={
            "opening": best.opening,
            "answering": best.answering,
            "sweep": [{**asdict(point), "chosen": point is best} for point in sweep],
            "within_limits": best.strain(limits) <= 1.0,
            "steps": steps,
            "layers": [summary(target, change) for target, change in updates],
            "seconds": clock.seconds,
        },
    )  # fmt: skip


def _fixed(thresholds: object) -> Thresholds | None:
    """The thresholds asked for, if they are not to be chosen."""
    match thresholds:
        case "auto":
            return None
        case (int() | float() as opening, int() | float() as answering):
            if math.isfinite(opening) and math.isfinite(answering):
                return Thresholds(float(opening), float(answering))
    raise ArgumentError(
        f'thresholds: got {thresholds!r}; expected "auto" or two log odds, where an '
        "answer begins and in answers that were begun, e.g. (1.0, -0.5)"
    )


def _sweep(
    problem: GateDescent,
    openings: Sequence[int],
    limits: RefusalLimits,
    fixed: Thresholds | None,
    progress: Progress,
) -> list[GateSweepPoint]:
    """Try one threshold for both kinds of neuron, then bolder ones for begun answers.

    Of these the boldest within the limits is the last: milder ones refuse less.
    """
    both = [fixed] if fixed else [Thresholds(at, at) for at in THRESHOLDS]
    most = len(both) if fixed else 2 * len(both) - 1
    report = counting(progress, "choosing thresholds", most)
    sweep: list[GateSweepPoint] = []

    def measured(thresholds: Thresholds) -> GateSweepPoint:
        sweep.append(problem.measure(thresholds, openings))
        report(1)
        return sweep[-1]

    for thresholds in both:
        measured(thresholds)
    best = choose(sweep, limits).opening
    for at in () if fixed else THRESHOLDS:
        if at >= best or measured(Thresholds(best, at)).strain(limits) <= 1.0:
            break
    report(most - len(sweep))
    return sweep


def _layer(
    model: nn.Module,
    tokenizer: Any,
    decoder: Decoder,
    layers: Literal["auto"] | Iterable[int],
    progress: Progress,
) -> int:
    chosen = asked_layers(layers, len(decoder.layers))
    if chosen is None:
        best = most_separating(
            model, tokenizer, decoder, "down_proj", progress, 1, COMPARED
        )
        return best[0].layer
    if len(chosen) != 1:
        raise ArgumentError(
            f'layers: got {chosen}; method "gate" changes one layer, e.g. [16]'
        )
    return chosen[0]
