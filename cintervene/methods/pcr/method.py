# SPDX-License-Identifier: Apache-2.0
"""PCR for a whole model: calibrate, solve the layers, choose the strength."""

from __future__ import annotations

from typing import Any

from torch import nn

from cintervene.intervention.intervention import Intervention
from cintervene.methods.common.result import Trial, make_chosen
from cintervene.methods.pcr.base_activations import BaseActivations
from cintervene.methods.pcr.config import PCRConfig
from cintervene.methods.pcr.constraints import ConstraintIndex, TokenConstraintIndex
from cintervene.methods.pcr.hinge.method import (
    Hinge,
    hinged_mlp,
    sentence_requests,
)
from cintervene.methods.pcr.layerwise import Layerwise, Problem
from cintervene.methods.pcr.point_constraints import PointConstraints
from cintervene.methods.pcr.regions import Balls, Differences
from cintervene.methods.pcr.resolve import checked_texts, resolved, strengths
from cintervene.methods.pcr.strength import Tuning, WordLimits, knee, sweep
from cintervene.methods.pcr.token_constraints import TokenConstraints
from cintervene.models.offload import has_offloaded
from cintervene.models.parts import ModelParts
from cintervene.models.precision import quick_products
from cintervene.prompts.answerer import AnsweredTogether, Answerer, answerer
from cintervene.prompts.calibration import (
    Calibration,
    calibrate_words,
    everyday_prompts,
)
from cintervene.prompts.request_calibration import (
    calibrate_examples,
    calibrate_requests,
)
from cintervene.prompts.word_sentences import sentence_prompts
from cintervene.utils.clock import Clock
from cintervene.utils.kept import kept
from cintervene.utils.progress import Progress, Step, counting

__all__ = ["calibrate", "constrain", "solve"]

CALIBRATE = {
    "forbid": calibrate_words,
    "examples": calibrate_examples,
    "harmful": calibrate_requests,
}


@quick_products()
def solve(
    model: nn.Module, tokenizer: Any, config: PCRConfig, progress: Progress
) -> Intervention:
    """Find the least change of a few layers that keeps outputs away from points.

    Each layer's constrained problem is solved by `cintervene.pcr`, to its proven
    optimum where that says so; the rank of that change is then cut to `max_rank`. For
    words neurons of one MLP are changed where `hinge` allows it. See
    docs/methods/pcr.md.

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

    References
    ----------
    arXiv 2510.03567, PCR.
    """
    config = checked_texts(tokenizer, config)
    parts = ModelParts.find(model)
    mlp = hinged_mlp(parts, config)
    config = resolved(config, parts)
    clock = Clock()
    answer = _answerer(model, tokenizer, config, mlp is not None)
    with clock.phase("prompts"):
        calibration = kept(
            "calibration", config.texts,
            lambda: calibrate(answer, tokenizer, config, progress),
        )  # fmt: skip
    if mlp is not None:
        hinge = Hinge(parts, tokenizer, mlp, config, answer, clock, progress)
        return hinge.solve(calibration)
    with clock.phase("capture"):
        layerwise = kept(
            "layers", (calibration, config.without_strength()),
            lambda: _constrained(parts, calibration, config, progress),
        )  # fmt: skip
    with clock.phase("tune"):
        tuning = Tuning.shared(parts, calibration, layerwise.targets[0].layer)
    limits = WordLimits(config.min_effect, config.max_kl, config.max_benign_loss)
    candidates = sweep(layerwise, tuning, strengths(config), limits, clock, progress)
    best = knee([candidate.point for candidate in candidates], limits)
    trials = [
        Trial(
            candidate.point,
            candidate.point.strain(limits) <= 1.0,
            candidate.updates,
            {"strength": candidate.point.strength},
            [change.summary() for change in candidate.changes],
        )
        for candidate in candidates
    ]
    return make_chosen(model, trials, best, config, clock)


def _answerer(
    model: nn.Module, tokenizer: Any, config: PCRConfig, neurons: bool
) -> Answerer:
    """Who answers prompts: of an offloaded model all that comes for words together.

    In memory each part has batches of its own, whose padding is part of the result.
    """
    size, words = config.calibration, config.forbid
    own = neurons and config.answers is None and has_offloaded(model)
    if words is None or not own:
        return answerer(model, tokenizer)
    requests = sentence_requests()
    sentences = sentence_prompts(tokenizer, words, requests, size.sentences)
    foreseen = [
        (everyday_prompts(tokenizer, size), size.answer_tokens),
        ([prompt for _, prompt in sentences], size.sentence_tokens),
    ]
    return AnsweredTogether(model, tokenizer, foreseen)


def calibrate(
    answer: Answerer, tokenizer: Any, config: PCRConfig, progress: Progress
) -> Calibration:
    """Make the texts to solve on and to choose the strength on.

    Parameters
    ----------
    answer : Answerer
        Of the model.
    tokenizer
    config : PCRConfig
        With the texts checked.
    """
    return CALIBRATE[config.kind](
        answer,
        tokenizer,
        getattr(config, config.kind),
        config.preserve,
        config.calibration,
        progress,
        config.answers,
    )


def constrain(
    parts: ModelParts,
    calibration: Calibration,
    config: PCRConfig,
    entered: Step | None = None,
) -> Layerwise:
    """Run the base model and constrain its outputs: all but the strength.

    Parameters
    ----------
    parts : ModelParts
    calibration : Calibration
    config : PCRConfig
        As `resolved` returns it.
    entered : callable, optional
        See `BaseActivations.gather`.
    """
    problem: Problem
    if config.on_tokens:
        tokens = TokenConstraintIndex.of(calibration.forget, calibration.near_negatives)
        base = BaseActivations.gather(parts, calibration, tokens, config, entered)
        contrast = config.concepts == "contrast"
        problem = TokenConstraints(tokens, base, parts.unembedding, contrast=contrast)
    else:
        rows = _grouped_rows(calibration, config)
        base = BaseActivations.gather(parts, calibration, rows, config, entered)
        region = Balls if config.concepts == "activation" else Differences
        problem = PointConstraints(rows, base, parts.unembedding, region=region)
    return Layerwise(problem, base, config)


def _constrained(
    parts: ModelParts, calibration: Calibration, config: PCRConfig, progress: Progress
) -> Layerwise:
    """Constrain the layers, and report how far the texts have come."""
    left = _solved_on(calibration)
    step = counting(progress, "watching layers", left)

    def entered(number: int) -> None:
        nonlocal left
        left -= number
        step(number)

    layerwise = constrain(parts, calibration, config, entered)
    # What was kept from another change's layers has entered already.
    if left:
        step(left)
    return layerwise


def _grouped_rows(calibration: Calibration, config: PCRConfig) -> ConstraintIndex:
    """A group of rows for each token, or one for a whole concept."""
    if config.kind == "forbid":
        return TokenConstraintIndex.of(calibration.forget)
    positions = config.calibration.positions
    return ConstraintIndex.grouped(calibration.forget, positions)


def _solved_on(calibration: Calibration) -> int:
    """How many texts the base model runs over."""
    parts = (calibration.forget, calibration.near_negatives, calibration.retain)
    return sum(map(len, parts))
