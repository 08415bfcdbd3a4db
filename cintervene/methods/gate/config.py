# SPDX-License-Identifier: Apache-2.0
"""The parameters of gates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from cintervene.methods.config import RequestConfig
from cintervene.utils.parameters import parameter
from cintervene.utils.ranges import (
    Auto,
    Flag,
    Optional,
    Pair,
    Plain,
    Positive,
    Scale,
    Share,
    Whole,
)
from cintervene.utils.validation import check_texts

__all__ = ["GateConfig"]


@dataclass(frozen=True)
class Text(Plain):
    """One text that is not blank."""

    metavar: str = "TEXT"

    def check(self, name: str, value: Any) -> str:
        """Return the text."""
        return check_texts(name, [value])[0]


@dataclass(frozen=True, kw_only=True)
class GateConfig(RequestConfig):
    """Gates: a few neurons of one MLP that recognise harmful requests and refuse them.

    For models with gated MLPs (Llama, Mistral, Qwen, Gemma, Phi-3, OLMo, GLM and others
    built so).

    Attributes
    ----------
    harmful : sequence of str, optional
        Requests to refuse; the package's own without it.
    refusal : str, optional
        What to say; one of the package's own without it. Best is one with whose first
        word the model begins no other answer.
    layers : "auto" or sequence of int
        The one layer that is changed; `"auto"` takes that whose MLP's inputs tell
        harmful requests of the tuning split best from others.
    preserve : sequence of str
        Prompts to answer as before, besides the package's own.
    max_kl : float
        Drift allowed on benign requests of the tuning split, nats a token.
    max_false_refusals : float
        Share of those that may be refused beyond what the model did before.
    thresholds : "auto" or (float, float)
        Log odds at which neurons open where an answer begins, and within a prefilled
        answer: the lower, the more is refused. `"auto"` tries several on the tuning
        split.
    relay : bool
        Whether two neurons below the layer raise a flag where a harmful request ends,
        which one attention head carries to all tokens of the answer, so that answers
        are broken off that were begun for the model. Where a model's attention does not
        allow it, it is left out.
    ridge : float
        Of the detectors: weight of the squared coefficients beside the mean loss.
    sharpness : float
        How many times log odds enter the activation function: larger ones make a step
        of it.
    steps : int
        Of the descent to what the neurons add.
    examples_per_step : int
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

    References
    ----------
    docs/methods/gate.md; the loss is that of TSR, arXiv 2510.03567.
    """

    method: ClassVar[str] = "gate"
    benign_counts = ("benign",)
    budgets: ClassVar = {
        "small": {"steps": 8, "benign": 60},
        "default": {},
        "large": {"steps": 48, "answer_tokens": 32},
    }

    max_false_refusals: float = parameter(
        Positive(metavar="SHARE"), 0.04, "benign requests refused in addition",
        group="limits",
    )  # fmt: skip
    refusal: str | None = parameter(
        Optional(Text()), None, "what to say; one of the package's own without it",
        group="texts",
    )  # fmt: skip
    thresholds: Literal["auto"] | tuple[float, float] = parameter(
        Auto(
            Pair(),
            "two log odds, where an answer begins and within a prefilled one, e.g. "
            "(1.0, -0.5)",
        ),
        "auto",
        "log odds at which neurons open where an answer begins, and within a prefilled "
        "one; auto chooses on requests set aside",
        group="main",
    )
    relay: bool = parameter(
        Flag(), False,
        "whether a flag is raised where harmful requests end, which one attention head "
        "carries to all tokens of the answer",
        group="main",
    )  # fmt: skip
    ridge: float = parameter(
        Scale(), 3e-3, "weight of the detectors' squared coefficients"
    )
    sharpness: float = parameter(
        Scale(), 3.0, "how many times log odds enter the activation function"
    )
    steps: int = parameter(Whole(least=1), 24, "steps of the descent")
    examples_per_step: int = parameter(
        Whole(least=1), 24, "harmful examples that each step looks at",
        formerly="lessons",
    )  # fmt: skip
    length: float = parameter(
        Scale(), 0.25, "length of the first step, relative to the residual stream"
    )
    first_token: float = parameter(
        Share(), 0.3, "share of a refusal's first token in its loss"
    )
    benign: int = parameter(
        Whole(),
        342,
        "everyday prompts, and as many that only sound harmful, to be answered as "
        "before",
    )
    answer_tokens: int = parameter(
        Whole(), 20,
        "how far the model answers every second of the benign prompts beforehand",
    )  # fmt: skip
