# SPDX-License-Identifier: Apache-2.0
"""The parameters of gates."""

from __future__ import annotations

from dataclasses import dataclass

from cintervene.utils.validation import (
    check_positive,
    check_share,
    check_whole,
)

__all__ = ["GateOptions"]


@dataclass(frozen=True)
class GateOptions:
    """How the neurons are made.

    Attributes
    ----------
    ridge : float
        Of the detectors: weight of the squared coefficients beside the mean loss.
    sharpness : float
        How many times log odds enter the activation function: larger ones make a step
        of it.
    steps : int
        Of the descent to what the neurons add.
    examples : int
        Harmful examples that each step looks at, about.
    length : float
        Of the first step, for each value, relative to the values of the residual
        stream; later ones are shorter.
    first_token : float
        Share of a refusal's first token in its loss.
    benign : int
        Of the package's everyday prompts and of those that only sound harmful, how many
        of each the detectors are to leave alone.
    answer_tokens : int
        How far the model answers every second of these, and of `preserve`, beforehand.
    """

    ridge: float = 3e-3
    sharpness: float = 3.0
    steps: int = 24
    examples: int = 24
    length: float = 0.25
    first_token: float = 0.3
    benign: int = 342
    answer_tokens: int = 20

    def __post_init__(self) -> None:
        check_positive(ridge=self.ridge, sharpness=self.sharpness, length=self.length)
        check_share(first_token=self.first_token)
        check_whole(1, steps=self.steps, examples=self.examples)
        check_whole(0, benign=self.benign, answer_tokens=self.answer_tokens)
