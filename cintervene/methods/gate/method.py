# SPDX-License-Identifier: Apache-2.0
"""Make a model refuse by a few neurons of one layer: from prompts to an intervention.

The neurons of a gated MLP that do least are given other rows and columns. Their gates
are linear detectors of harmful requests, so that at all other tokens the activation
function is closed and nothing is added; only what they add where they are open has to
be learnt by descent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch
from torch import nn

from cintervene import data
from cintervene.errors import ArgumentError, ModelError
from cintervene.intervention.intervention import Intervention
from cintervene.methods.common.descent import take_steps
from cintervene.methods.common.gated_mlp import GatedMLP
from cintervene.methods.common.gated_mlp_discovery import find_gated_mlp
from cintervene.methods.common.layer_selection import (
    layers_in_question,
    most_separating,
)
from cintervene.methods.common.result import Trial, make_chosen
from cintervene.methods.common.sweep import RefusalLimits, mildest_within
from cintervene.methods.gate.config import GateConfig
from cintervene.methods.gate.descent import GateDescent, GateSweepPoint, tuning_states
from cintervene.methods.gate.examples import prepare
from cintervene.methods.gate.gates import Thresholds
from cintervene.methods.gate.relay import find_carrier, fit_relay
from cintervene.models.decoder import requested_layers
from cintervene.models.parts import ModelParts
from cintervene.models.precision import quick_products
from cintervene.models.quantised import check_gradients
from cintervene.models.targets import Target
from cintervene.prompts.spelling import encode_text
from cintervene.solvers.update import LowRankUpdate
from cintervene.utils.clock import Clock
from cintervene.utils.progress import Progress, counting

__all__ = ["gated_mlps", "solve"]

# Log odds that are tried, boldest first.
THRESHOLDS = (-0.5, 0.0, 0.5, 1.0, 2.0)
# Requests of each kind to fit to and to judge on where a layer is chosen: fewer do not
# tell it from its neighbours.
COMPARED = (250, 50)


@quick_products()
def solve(
    model: nn.Module, tokenizer: Any, config: GateConfig, progress: Progress
) -> Intervention:
    """Give a model a few neurons that recognise harmful requests and refuse them.

    Parameters
    ----------
    model : nn.Module
        A causal language model of transformers with gated MLPs.
    tokenizer
        Its tokenizer.
    config : GateConfig
    progress : callable
        Called as ``progress(phase, done, total)``.

    Returns
    -------
    Intervention
        Of the gate, up and down projections of one MLP, with `options`, and `metrics`:
        `opening`, `answering`, `sweep`, `within_limits`, `steps`, `layers`, `seconds`.

    Raises
    ------
    ArgumentError
        A layer is out of range, or there is nothing to refuse.
    ModelError
        The MLP of the layer is not gated, or cannot be changed.
    """
    parts = ModelParts.find(model)
    check_gradients(model)
    clock = Clock()
    with clock.phase("layer"):
        mlp = _best(parts, tokenizer, gated_mlps(parts, config.layers), progress)
    refusal = config.refusal or data.safe_refusals()[0]
    config = replace(config, layers=[mlp.block.layer], refusal=refusal)
    carrier = find_carrier(parts.decoder, mlp.block.layer) if config.relay else None
    with clock.phase("prompts"):
        # Deep within an answer its tokens alone tell too little.
        examples = prepare(model, tokenizer, config, refusal, progress, bool(carrier))
    carried: list[tuple[Target, LowRankUpdate]] = []
    base = None
    if carrier is not None:
        with clock.phase("relay"):
            base = tuning_states(parts, mlp, examples)
            relay = fit_relay(parts.decoder, carrier, examples, config.ridge, progress)
            carried = relay.updates()
    openings = [encode_text(tokenizer, gap + refusal)[0] for gap in ("", " ")]
    limits = RefusalLimits(config.max_kl, config.max_false_refusals)
    with _changed(model, carried):
        with clock.phase("capture"):
            problem = GateDescent(parts, mlp, examples, config, progress, base)
        with clock.phase("detectors"):
            problem.fit()
        with clock.phase("solve"):
            steps = take_steps(model, problem.descend(), config.steps, progress)
        with clock.phase("tune"), torch.no_grad():
            sweep = _sweep(problem, openings, limits, config, progress)
    best = mildest_within(sweep, limits)

    def updates(point: GateSweepPoint) -> list[tuple[Target, LowRankUpdate]]:
        return [*carried, *problem.updates(point.thresholds)]

    trials = [
        Trial(
            point,
            point.strain(limits) <= 1.0,
            partial(updates, point),
            {"opening": point.opening, "answering": point.answering},
        )
        for point in sweep
    ]
    return make_chosen(model, trials, best, config, clock, {"steps": steps})


def _changed(
    model: nn.Module, updates: Sequence[tuple[Target, LowRankUpdate]]
) -> AbstractContextManager[object]:
    """The model with some changes, inside only."""
    if not updates:
        return nullcontext()
    return Intervention.of(model, updates, reversible=False).applied(model)


def _sweep(
    problem: GateDescent,
    openings: Sequence[int],
    limits: RefusalLimits,
    config: GateConfig,
    progress: Progress,
) -> list[GateSweepPoint]:
    """Try one threshold for both kinds of neuron, then bolder ones after prefills.

    Of these the boldest within the limits is the last: milder ones refuse less.
    """
    fixed = None if isinstance(config.thresholds, str) else config.thresholds
    both = [Thresholds(*fixed)] if fixed else [Thresholds(at, at) for at in THRESHOLDS]
    most = len(both) if fixed else 2 * len(both) - 1
    report = counting(progress, "choosing thresholds", most)
    sweep: list[GateSweepPoint] = []

    def measured(thresholds: Thresholds) -> GateSweepPoint:
        sweep.append(problem.measure(thresholds, openings))
        report(1)
        return sweep[-1]

    for thresholds in both:
        measured(thresholds)
    best = mildest_within(sweep, limits).opening
    for at in () if fixed else THRESHOLDS:
        if at >= best or measured(Thresholds(best, at)).strain(limits) <= 1.0:
            break
    report(most - len(sweep))
    return sweep


def gated_mlps(
    parts: ModelParts, layers: Literal["auto"] | Sequence[int]
) -> dict[int, GatedMLP]:
    """The MLPs that may be changed, by layer: the one requested, or all in question.

    Those that are not gated are left out, if others are.
    """
    requested = requested_layers(layers, parts.n_layers)
    if requested is not None and len(requested) != 1:
        raise ArgumentError(
            f'layers: got {requested}; method "gate" changes one layer, e.g. [16]'
        )
    found, reasons = {}, []
    for layer in requested or layers_in_question(parts.n_layers):
        try:
            found[layer] = find_gated_mlp(parts.decoder, layer)
        except ModelError as error:
            reasons.append(error)
    if not found:
        raise reasons[0]
    return found


def _best(
    parts: ModelParts,
    tokenizer: Any,
    mlps: Mapping[int, GatedMLP],
    progress: Progress,
) -> GatedMLP:
    """The only one, or that whose inputs tell requests apart best."""
    if len(mlps) == 1:
        return next(iter(mlps.values()))
    (best,) = most_separating(
        parts.decoder, tokenizer, "down_proj", progress, 1, COMPARED, list(mlps)
    )
    return mlps[best.layer]
