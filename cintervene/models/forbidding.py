# SPDX-License-Identifier: Apache-2.0
"""Forbid a vocabulary: from words to an intervention."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from torch import nn

from cintervene.errors import ArgumentError
from cintervene.models.clock import Clock
from cintervene.models.concepts import Concepts, check_concepts
from cintervene.models.intervention import Intervention
from cintervene.models.material import Budget, gather
from cintervene.models.precision import quick_products
from cintervene.models.spelling import words_to_forbid
from cintervene.models.targets import (
    Matrix,
    check_matrix,
    find_decoder,
    resolve_layers,
)
from cintervene.models.tuning import Limits, Point, Tuning, knee
from cintervene.models.vocabulary import LayerChange, Vocabulary, VocabularyOptions
from cintervene.progress import Progress, counting, silent

__all__ = ["choose_layers", "forbid_words"]

# Strengths that "auto" tries, weakest first: as many as make a curve, and then on until
# one reaches the effect or crosses the limits.
STRENGTHS = {
    "contrast": (10.0, 14.0, 18.0, 24.0, 32.0),
    "unembedding": (10.0, 14.0, 18.0, 24.0, 32.0),
    "activation": (1.05, 1.2, 1.5, 2.0, 2.5, 3.0),
}
CURVE = 3


@quick_products()
def forbid_words(
    model: nn.Module,
    tokenizer: Any,
    forbid: Sequence[str],
    *,
    concepts: Concepts = "contrast",
    layers: Literal["auto"] | Iterable[int] = "auto",
    matrix: Matrix = "down_proj",
    preserve: Iterable[str] = (),
    strength: Literal["auto"] | float = "auto",
    min_effect: float = 5.0,
    max_kl: float = 0.05,
    max_benign_loss: float = 0.05,
    options: VocabularyOptions | None = None,
    budget: Budget | None = None,
    progress: Progress = silent,
) -> Intervention:
    """Find the least change of a few layers that keeps the model from saying words.

    The forbidden outputs are constraints on points (PCR); the size of the change is
    what is minimised. The model is left as it was; give the result to
    `Intervention.apply`.

    Parameters
    ----------
    model : nn.Module
        A causal language model of transformers.
    tokenizer
        Its tokenizer.
    forbid : sequence of str
        Words, each forbidden in all its surface forms (lower-case, capitalised,
        upper-case, with and without a space before it) and wherever in an answer.
    concepts : {"contrast", "unembedding", "activation"}
        What stands for a word in a layer's outputs; see `VocabularyOptions`.
    layers : "auto" or iterable of int
        Layers that are changed; negative indices count from the end. `"auto"` takes the
        last fifteenth of them, two at least: only there does the direction of a token
        say what the layer does to its probability.
    matrix : {"down_proj", "o_proj"}
        The projection of each that is changed: the MLP's or the attention's.
    preserve : iterable of str
        Texts whose processing is to stay as it is, besides the package's own.
    strength : "auto" or float
        See `Vocabulary.solve`. `"auto"` tries several on a tuning split and takes the
        knee of effect against drift; see `tuning.knee`. The whole curve is in the
        result's metrics.
    min_effect : float
        For `"auto"`: how many times its value the perplexity of forbidden words shall
        become.
    max_kl : float
        For `"auto"`: drift allowed on benign answers, nats a token.
    max_benign_loss : float
        For `"auto"`: rise allowed of benign words' perplexity, as a fraction.
    options : VocabularyOptions, optional
        Details of the constraints and of the norm; its `concepts` is replaced.
    budget : Budget, optional
        How much material to build from.
    progress : callable, optional
        Called as ``progress(phase, done, total)``.

    Returns
    -------
    Intervention
        With `options`, and `metrics`: `strength`, `sweep`, `layers`, `seconds`.

    Raises
    ------
    ArgumentError
        An option is unknown or out of range, or a word cannot be spelled.
    ModelError
        The model has no layers that can be changed.
    """
    check_matrix(matrix)
    words = words_to_forbid(tokenizer, forbid)
    details = _options(concepts, options)
    limits = _limits(min_effect, max_kl, max_benign_loss)
    strengths = _strengths(strength, concepts)
    decoder = find_decoder(model)
    chosen = choose_layers(layers, len(decoder.layers))
    clock = Clock()
    with clock.phase("prompts"):
        material = gather(
            model, tokenizer, words, preserve, budget or Budget(), progress
        )
    with clock.phase("capture"):
        parts = (material.probes, material.benign, material.contrast)
        entered = counting(progress, "watching layers", sum(map(len, parts)))
        vocabulary = Vocabulary(model, *parts, chosen, details, entered, matrix)
    with clock.phase("tune"):
        tuning = Tuning(model, material, chosen[0], decoder, vocabulary.unembedding)
    candidates = _sweep(vocabulary, tuning, strengths, limits, clock, progress)
    best = knee([one.point for one in candidates], limits)
    changes = next(one.changes for one in candidates if one.point is best)
    return Intervention.of(
        model,
        [(change.target, change.update) for change in changes],
        options={
            "forbid": words,
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
            "layers": [change.summary() for change in changes],
            "seconds": clock.seconds,
        },
    )


@dataclass(frozen=True, eq=False)
class _Candidate:
    """The changes found at one strength, and what they do."""

    changes: list[LayerChange]
    point: Point


def _sweep(
    vocabulary: Vocabulary,
    tuning: Tuning,
    strengths: Sequence[float],
    limits: Limits,
    clock: Clock,
    progress: Progress,
) -> list[_Candidate]:
    """Try strengths in order, until the limits are crossed or the effect is reached."""
    found: list[_Candidate] = []
    for index, strength in enumerate(strengths):
        progress("solving", index, len(strengths))
        with clock.phase("solve"):
            changes = vocabulary.solve(strength)
        with clock.phase("tune"):
            point = tuning.measure(changes, strength)
        found.append(_Candidate(changes, point))
        enough = len(found) >= CURVE and point.effective(limits)
        if enough or point.strain(limits) > 1.0:
            break
    progress("solving", len(strengths), len(strengths))
    return found


def _options(
    concepts: Concepts, options: VocabularyOptions | None
) -> VocabularyOptions:
    check_concepts(concepts)
    return replace(options or VocabularyOptions(), concepts=concepts)


def _limits(min_effect: float, max_kl: float, max_benign_loss: float) -> Limits:
    for name, value in (
        ("min_effect", min_effect),
        ("max_kl", max_kl),
        ("max_benign_loss", max_benign_loss),
    ):
        if not 0.0 < value < math.inf:
            raise ArgumentError(f"{name}: got {value}; expected a positive number")
    return Limits(min_effect, max_kl, max_benign_loss)


def _strengths(strength: object, concepts: str) -> tuple[float, ...]:
    if strength == "auto":
        return STRENGTHS[concepts]
    if isinstance(strength, (int, float)) and 0.0 < strength < math.inf:
        return (float(strength),)
    raise ArgumentError(
        f'strength: got {strength!r}; expected "auto" or a positive number'
    )


def choose_layers(layers: object, n_layers: int) -> list[int]:
    """Return the layers that `forbid_words` changes, for its argument `layers`."""
    if layers == "auto":
        return list(
            range(n_layers - min(n_layers, max(2, round(n_layers / 15))), n_layers)
        )
    if isinstance(layers, str) or not isinstance(layers, Iterable):
        raise ArgumentError(
            f'layers: got {layers!r}; expected "auto" or layer indices, e.g. [26, 27]'
        )
    return resolve_layers(layers, n_layers)
