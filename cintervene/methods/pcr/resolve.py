# SPDX-License-Identifier: Apache-2.0
"""What "auto" stands for in a configuration of PCR."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from cintervene.errors import ArgumentError
from cintervene.methods.pcr.config import TOKENWISE, Concepts, Kind, PCRConfig
from cintervene.models.decoder import requested_layers
from cintervene.models.parts import ModelParts
from cintervene.prompts.request_calibration import check_several
from cintervene.prompts.spelling import words_to_forbid

__all__ = [
    "SLACK", "checked_texts", "choose_layers", "last_changed", "resolved", "strengths",
]  # fmt: skip

# Strengths that "auto" tries, weakest first: as many as make a curve, and then on until
# one reaches the effect or crosses the limits.
STRENGTHS = {
    **dict.fromkeys(TOKENWISE, (10.0, 13.0, 16.0, 18.0, 20.0, 24.0, 28.0, 32.0)),
    "activation": (1.05, 1.2, 1.5, 2.0, 2.5, 3.0),
    "difference": (4.0, 8.0, 12.0, 16.0, 20.0, 24.0, 32.0, 40.0),
}
# Where "auto" changes a model for concepts and requests, as a share of its depth: see
# docs/methods/pcr.md.
DEPTH = {"examples": 0.28, "harmful": 0.51}
CONCEPTS: dict[Kind, Concepts] = {
    "forbid": "contrast",
    "examples": "difference",
    "harmful": "difference",
}
# Larger where rows are many and of one group.
SLACK: dict[Kind, float] = {"forbid": 1.0, "examples": 10.0, "harmful": 10.0}


def checked_texts(tokenizer: Any, config: PCRConfig) -> PCRConfig:
    """Return the configuration with the forbidden words, examples or requests checked.

    Raises
    ------
    ArgumentError
        A word cannot be spelled, or there are too few texts.
    """
    kind = config.kind
    texts = getattr(config, kind)
    if kind == "forbid":
        return replace(config, forbid=words_to_forbid(tokenizer, texts))
    checked: dict[str, Any] = {kind: check_several(kind, texts)}
    return replace(config, **checked)


def resolved(config: PCRConfig, parts: ModelParts) -> PCRConfig:
    """Return the configuration with a value in each place of "auto", but `strength`.

    Raises
    ------
    ArgumentError
        A layer is out of range, or the concepts stand for words only.
    ModelError
        A layer that is asked for cannot be changed, or none can.
    """
    kind = config.kind
    concepts = CONCEPTS[kind] if config.concepts == "auto" else config.concepts
    if kind != "forbid" and concepts in TOKENWISE:
        raise ArgumentError(
            f"concepts: got {concepts!r}, which stands for a word; expected "
            f'"activation" or "difference" with {kind}='
        )
    last = last_changed(parts.n_layers) if kind == "forbid" else None
    able = parts.changeable(config.matrix, last)
    layers = choose_layers(config.layers, parts.n_layers, kind, able)
    parts.targets(layers, config.matrix)
    return replace(
        config,
        layers=layers,
        concepts=concepts,
        slack=SLACK[kind] if config.slack == "auto" else config.slack,
    )


def strengths(config: PCRConfig) -> tuple[float, ...]:
    """The strengths to try, weakest first, where `concepts` was resolved."""
    if config.strength == "auto":
        return STRENGTHS[config.concepts]
    return (float(config.strength),)


def last_changed(n_layers: int) -> int:
    """How many of the last layers are changed for words, by `"auto"`."""
    return max(2, round(n_layers / 15))


def choose_layers(
    layers: object, n_layers: int, kind: Kind, able: Sequence[int] | None = None
) -> list[int]:
    """Return the layers that PCR changes, for its parameter `layers`.

    `"auto"` takes the last ones, or the one nearest to a depth, of those that are able
    to be changed: all without `able`.
    """
    given = requested_layers(layers, n_layers)
    if given is not None:
        return given
    able = range(n_layers) if able is None else able
    if kind == "forbid":
        return list(able[-last_changed(n_layers) :])
    wanted = int(DEPTH[kind] * n_layers)
    return [min(able, key=lambda layer: abs(layer - wanted))]
