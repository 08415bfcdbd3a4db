# SPDX-License-Identifier: Apache-2.0
"""From words, examples or requests to an intervention that keeps away from them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from torch import nn

from cintervene.errors import ArgumentError
from cintervene.intervention.intervention import Intervention
from cintervene.methods.pcr.config import (
    Concepts,
    PCROptions,
    check_concepts,
)
from cintervene.methods.pcr.constraints import (
    ConstraintIndex,
    TokenConstraintIndex,
)
from cintervene.methods.pcr.layerwise import (
    LayerChange,
    Layerwise,
)
from cintervene.methods.pcr.point_constraints import ConceptPoints
from cintervene.methods.pcr.strength import (
    SweepPoint,
    Tuning,
    WordLimits,
    knee,
)
from cintervene.methods.pcr.token_constraints import Vocabulary
from cintervene.models.decoder import (
    asked_layers,
    find_decoder,
)
from cintervene.models.precision import quick_products
from cintervene.models.targets import check_matrix
from cintervene.prompts.calibration import (
    Calibration,
    CalibrationSize,
)
from cintervene.prompts.forbidden import (
    Forbidden,
    Kind,
)
from cintervene.utils.clock import Clock
from cintervene.utils.literals import Matrix
from cintervene.utils.progress import (
    Progress,
    counting,
    silent,
)
from cintervene.utils.validation import check_positive

__all__ = ["choose_layers", "keep_away"]

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
# Of the options, where none are given and rows are many and of one group.
SLACK = 10.0


@quick_products()
def keep_away(
    model: nn.Module,
    tokenizer: Any,
    forbid: Sequence[str] | None = None,
    *,
    examples: Sequence[str] | None = None,
    harmful: Sequence[str] | None = None,
    concepts: Literal["auto"] | Concepts = "auto",
    layers: Literal["auto"] | Iterable[int] = "auto",
    matrix: Matrix = "down_proj",
    preserve: Iterable[str] = (),
    strength: Literal["auto"] | float = "auto",
    min_effect: float = 10.0,
    max_kl: float = 0.05,
    max_benign_loss: float = 0.05,
    options: PCROptions | None = None,
    budget: CalibrationSize | None = None,
    progress: Progress = silent,
) -> Intervention:
    """Find the least change of a few layers that keeps outputs away from points.

    What is not to be said is constraints on points (PCR); the size of the change is
    what is minimised. The model is left as it was; give the result to
    `Intervention.apply`.

    Parameters
    ----------
    model : nn.Module
        A causal language model of transformers.
    tokenizer
        Its tokenizer.
    forbid : sequence of str, optional
        Words, each forbidden in all its surface forms (lower-case, capitalised,
        upper-case, with and without a space before it) and wherever in an answer.
    examples : sequence of str, optional
        Sentences about what is not to come up, two at least. A quarter of them is used
        to choose the strength and for nothing else.
    harmful : sequence of str, optional
        Requests, two at least, whose answers are to become unlikely; a quarter as for
        `examples`. Exactly one of `forbid`, `examples` and `harmful` is given.
    concepts : {"auto", "contrast", "unembedding", "activation", "difference"}
        What stands for it in a layer's outputs; see `PCROptions`. `"auto"` is
        `"contrast"` for words and `"difference"` for everything else.
    layers : "auto" or iterable of int
        Layers that are changed; negative indices count from the end. For words
        `"auto"` takes the last fifteenth of them, two at least: only there does the
        direction of a token say what the layer does to its probability. For examples it
        is one layer at a quarter of the depth, for requests one at half of it.
    matrix : {"down_proj", "o_proj"}
        The projection of each that is changed: the MLP's or the attention's.
    preserve : iterable of str
        Texts whose processing is to stay as it is, besides the package's own.
    strength : "auto" or float
        See `Vocabulary` and `ConceptPoints`. `"auto"` tries several on a tuning split
        and takes the knee of effect against drift; see `tuning.knee`. The whole curve
        is in the result's metrics.
    min_effect : float
        For `"auto"`: how many times its value the perplexity of forbidden words, of
        the examples held apart or of the answers to such requests shall become.
    max_kl : float
        Drift allowed on benign answers, nats a token.
    max_benign_loss : float
        Rise allowed of benign words' perplexity, as a fraction. Both are what `"auto"`
        chooses by. A number for `strength` is measured on the tuning split too, and a
        change that is beyond them is not saved unasked: see `Intervention.save`.
    options : PCROptions, optional
        Details of the constraints and of the norm; its `concepts` is replaced. Without
        it the slack for examples and requests is ten times that for words.
    budget : CalibrationSize, optional
        How much material to build from.
    progress : callable, optional
        Called as ``progress(phase, done, total)``.

    Returns
    -------
    Intervention
        With `options`, and `metrics`: `strength`, `sweep`, `within_limits`, `layers`,
        `seconds`.

    Raises
    ------
    ArgumentError
        An option is unknown or out of range, a word cannot be spelled, or the model
        refuses all requests.
    ModelError
        The model has no layers that can be changed.
    """
    check_matrix(matrix)
    subject = Forbidden.of(tokenizer, forbid, examples, harmful)
    details = _options(subject.kind, concepts, options)
    limits = _limits(min_effect, max_kl, max_benign_loss)
    strengths = _strengths(strength, details.concepts)
    decoder = find_decoder(model)
    chosen = choose_layers(layers, len(decoder.layers), subject.kind)
    used = budget or CalibrationSize()
    clock, preserve = Clock(), list(preserve)
    with clock.phase("prompts"):
        material = subject.gather(model, tokenizer, preserve, used, progress)
    with clock.phase("capture"):
        parts = (material.probes, material.benign, material.contrast)
        entered = counting(progress, "watching layers", sum(map(len, parts)))
        problem = _problem(
            model, subject, material, chosen, details, used, entered, matrix
        )
    with clock.phase("tune"):
        tuning = Tuning(model, material, chosen[0], decoder, problem.unembedding)
    candidates = _sweep(problem, tuning, strengths, limits, clock, progress)
    best = knee([one.point for one in candidates], limits)
    changes = next(one.changes for one in candidates if one.point is best)
    return Intervention.of(
        model,
        [(change.target, change.update) for change in changes],
        options={
            **subject.recorded,
            "preserve": len(preserve),
            "method": "pcr",
            "layers": chosen,
            "matrix": matrix,
            "strength": strength,
            "min_effect": min_effect,
            "max_kl": max_kl,
            "max_benign_loss": max_benign_loss,
            **asdict(details),
        },
        metrics={
            "strength": best.strength,
            "sweep": [
                {**asdict(one.point), "chosen": one.point is best} for one in candidates
            ],
            "within_limits": best.strain(limits) <= 1.0,
            "layers": [change.summary() for change in changes],
            "seconds": clock.seconds,
        },
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
    model: nn.Module,
    subject: Forbidden,
    material: Calibration,
    layers: Sequence[int],
    options: PCROptions,
    budget: CalibrationSize,
    entered: Callable[[int], None],
    matrix: Matrix,
) -> Layerwise:
    """The constraints: on tokens, or on points among the outputs."""
    parts = (material.probes, material.benign, material.contrast)
    if options.concepts in TOKENWISE:
        return Vocabulary(model, *parts, layers, options, entered, matrix)
    if subject.kind == "forbid":
        pairs: ConstraintIndex = TokenConstraintIndex.of(material.probes)
    else:
        pairs = ConstraintIndex.grouped(material.probes, budget.positions)
    return ConceptPoints(model, *parts, pairs, layers, options, entered, matrix)


def _options(kind: Kind, concepts: str, options: PCROptions | None) -> PCROptions:
    if concepts == "auto":
        concepts = CONCEPTS[kind]
    if kind != "forbid" and concepts in TOKENWISE:
        raise ArgumentError(
            f"concepts: got {concepts!r}, which stands for a word; expected "
            f'"activation" or "difference" with {kind}='
        )
    if options is None:
        default = PCROptions()
        options = default if kind == "forbid" else replace(default, slack=SLACK)
    return replace(options, concepts=check_concepts(concepts))


def _limits(min_effect: float, max_kl: float, max_benign_loss: float) -> WordLimits:
    check_positive(
        min_effect=min_effect, max_kl=max_kl, max_benign_loss=max_benign_loss
    )
    return WordLimits(min_effect, max_kl, max_benign_loss)


def _strengths(strength: object, concepts: str) -> tuple[float, ...]:
    if strength == "auto":
        return STRENGTHS[concepts]
    if isinstance(strength, (int, float)) and 0.0 < strength < math.inf:
        return (float(strength),)
    raise ArgumentError(
        f'strength: got {strength!r}; expected "auto" or a positive number'
    )


def choose_layers(layers: object, n_layers: int, kind: Kind) -> list[int]:
    """Return the layers that `keep_away` changes, for its argument `layers`."""
    asked = asked_layers(layers, n_layers)
    if asked is not None:
        return asked
    if kind == "forbid":
        count = min(n_layers, max(2, round(n_layers / 15)))
        return list(range(n_layers - count, n_layers))
    return [int(DEPTH[kind] * n_layers)]
