# SPDX-License-Identifier: Apache-2.0
"""The parameters of TSR."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from cintervene.errors import ArgumentError
from cintervene.utils.validation import (
    check_not_negative,
    check_positive,
    check_share,
    check_whole,
)

__all__ = ["TSROptions"]

Ball = Literal["preserve", "frobenius"]


@dataclass(frozen=True)
class TSROptions:
    """How a model is taught to refuse.

    Attributes
    ----------
    steps : int
        Projected gradient steps.
    parts : int
        Into how many parts the examples are divided; each step looks at one.
    ball : {"preserve", "frobenius"}
        What the radius bounds: `"preserve"` how far benign inputs and outputs are
        moved, `"frobenius"` the plain norm of the change. Both are relative to the same
        norm of the weight.
    length : float
        Length of the first step in units of the radius, at the layer that gains most;
        later ones are shorter.
    inertia : float
        Weight of the gradients before in the direction of a step.
    kl_weight : float
        Weight of the divergence on benign examples. Its derivatives come from few tokens
        and differ from part to part; with a large weight, steps follow that noise.
    first_token : float
        Share of a refusal's first token in its loss.
    ridge : float
        Of the norm's inputs, relative to the mean squared input; not used in the
        Frobenius ball.
    output_ridge : float
        Of its outputs, relative to their mean Fisher information; as `ridge`.
    answers, answer_tokens : int
        Everyday prompts that the model answers beforehand, and how far.
    borderline : int
        Of the package's prompts that only sound harmful, how many are to be answered as
        before.
    """

    steps: int = 40
    parts: int = 32
    ball: Ball = "preserve"
    length: float = 0.3
    inertia: float = 0.7
    kl_weight: float = 5.0
    first_token: float = 0.3
    ridge: float = 1e-2
    output_ridge: float = 0.1
    answers: int = 340
    answer_tokens: int = 20
    borderline: int = 340

    def __post_init__(self) -> None:
        if self.ball not in get_args(Ball):
            valid = ", ".join(repr(name) for name in get_args(Ball))
            raise ArgumentError(f"ball: got {self.ball!r}; expected one of {valid}")
        check_positive(length=self.length)
        check_not_negative(kl_weight=self.kl_weight)
        check_positive(ridge=self.ridge, output_ridge=self.output_ridge)
        check_share(inertia=self.inertia, first_token=self.first_token)
        check_whole(1, steps=self.steps, parts=self.parts)
        check_whole(0, answers=self.answers, answer_tokens=self.answer_tokens)
        check_whole(0, borderline=self.borderline)
