# SPDX-License-Identifier: Apache-2.0
"""The parameters of PCR."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self, get_args

from cintervene.errors import ArgumentError
from cintervene.methods.config import ProjectionConfig
from cintervene.prompts.calibration_size import CalibrationSize, Sizes
from cintervene.solvers.pcr import METHODS
from cintervene.utils.parameters import parameter
from cintervene.utils.ranges import (
    Auto,
    Choice,
    Exchanges,
    Optional,
    Positive,
    Scale,
    Texts,
    Whole,
)

__all__ = ["TOKENWISE", "Concepts", "Kind", "PCRConfig"]

Concepts = Literal["contrast", "unembedding", "activation", "difference"]
# Concepts that stand for single tokens.
TOKENWISE = ("contrast", "unembedding")
# By which parameter it is given what is not to be said.
Kind = Literal["forbid", "examples", "harmful"]


@dataclass(frozen=True, kw_only=True)
class PCRConfig(ProjectionConfig):
    """PCR: the least change of a few layers that keeps their outputs away from points.

    Numbers in parentheses are formulas of docs/methods/pcr.md.

    Exactly one of `forbid`, `examples` and `harmful` is given.

    Attributes
    ----------
    forbid : sequence of str, optional
        Words, each forbidden in all its surface forms (lower-case, capitalised,
        upper-case, with and without a space before it) and wherever in an answer.
    examples : sequence of str, optional
        Sentences about what is not to come up, two at least. A quarter of them is used
        to choose the strength and for nothing else.
    harmful : sequence of str, optional
        Requests, two at least, whose answers are to become unlikely; a quarter as for
        `examples`.
    concepts : {"auto", "contrast", "unembedding", "activation", "difference"}
        What stands for it in a layer's outputs. For a token: a half-space (8) away from
        the direction that raises its logit, minus the mean direction of benign text
        (`"contrast"`) or not (`"unembedding"`). For a token or a whole concept: a ball
        (12) around the mean output of the spans about to say it (`"activation"`), or a
        half-space (13) on the way from there to the benign mean (`"difference"`).
        `"auto"` is `"contrast"` for words and `"difference"` for everything else.
    layers : "auto" or sequence of int
        Layers that are changed; negative indices count from the end. For words
        `"auto"` takes the last fifteenth of them, two at least: only there does the
        direction of a token say what the layer does to its probability. For examples it
        is one layer at a quarter of the depth, for requests one at half of it.
    matrix : {"down_proj", "o_proj"}
        The projection of each that is changed: the MLP's or the attention's.
    preserve : sequence of str
        Texts whose processing is to stay as it is, besides the package's own.
    answers : sequence of (str, str), optional
        Prompts, two at least, with answers that there are already: in place of those
        that the model would give to the package's everyday prompts, of which a quarter
        is used to choose the strength and for nothing else, and in place of texts that
        it would write about forbidden words. Where one is said, the answer counts as
        such a text. Answers to `harmful` requests are the model's nevertheless.
    hinge : {"auto", "on", "off"}
        For words: change a few neurons of one gated MLP, which open only where a
        forbidden word is about to be said (9) to (11), instead of a whole matrix,
        which acts everywhere. `"auto"` does so where the MLP is gated and no norm
        follows it, and neither `layers` nor `matrix` asks for something else.
    max_neurons : "auto" or int
        How many neurons `hinge` may change, at most half of `max_rank`; more words than
        these share them. `"auto"` is a twentieth of the MLP's, and of lists for which
        that is little, three for four words up to a twelfth.
    strength : "auto" or float
        How far outputs are pushed: the s of (8) and (11) to (13).
        `"auto"` tries several on a tuning split and takes the knee of effect against
        drift; see `strength.knee`. The whole curve is in the result's metrics.
    min_effect : float
        For `"auto"`: how many times its value the perplexity of forbidden words, of
        the examples held apart or of the answers to such requests shall become.
    max_kl : float
        Drift allowed on benign answers, nats a token.
    max_benign_loss : float
        Rise allowed of benign words' perplexity, as a fraction. Both are what `"auto"`
        chooses by. A number for `strength` is measured on the tuning split too, and a
        change that is beyond them is not saved unasked: see `Intervention.save`.
    slack : "auto" or float
        How much of its displacement a prompt may take up by itself, the rho of (7); see
        `cintervene.pcr`. `"auto"` is 1 for words, and 10 for examples and requests,
        whose rows are many and of one group.
    ridge : float
        Of `Preserve` (3), relative to the mean squared input.
    output_ridge : float or None
        Of the output metric (14), relative to its mean; None measures outputs by the
        plain norm.
    solver : {"exact", "most_violated"}
        The `method` of `cintervene.pcr`.
    max_rank : int
        Largest rank of a change of a matrix. Of neurons, which take two each, there are
        fewer then. A change that acts everywhere is solved first, which is what is
        proved, and the closest change of that rank is left.
    calibration : CalibrationSize
        How much text to calibrate with.

    References
    ----------
    arXiv 2510.03567, PCR; docs/methods/pcr.md.
    """

    method: ClassVar[str] = "pcr"
    dealt = True
    budgets: ClassVar = {
        name: {"calibration": name} for name in CalibrationSize.budgets
    }

    forbid: Sequence[str] | None = parameter(
        Optional(Texts(metavar="WORDS")), None,
        "obedience, the package's 100 words, or a UTF-8 file with a word or phrase not "
        "to be said on each line, where # begins a comment",
        group="texts",
    )  # fmt: skip
    examples: Sequence[str] | None = parameter(
        Optional(Texts()), None,
        "instead of words, a UTF-8 file with a sentence on each line about what is "
        "not to come up",
        private=True, group="texts",
    )  # fmt: skip
    harmful: Sequence[str] | None = parameter(
        Optional(Texts()), None,
        "instead of words, a UTF-8 file with a request on each line whose answer "
        "is to become unlikely, or own for the package's",
        private=True, group="texts",
    )  # fmt: skip
    answers: Sequence[tuple[str, str]] | None = parameter(
        Optional(Exchanges(least=2)), None,
        "pairs of a prompt and its answer, in place of the model's own answers",
        flag=False, private=True, group="texts",
    )  # fmt: skip
    concepts: Literal["auto"] | Concepts = parameter(
        Choice(names=("auto", *get_args(Concepts))), "auto",
        "what stands for a word or a concept inside the model",
        group="main",
    )  # fmt: skip
    hinge: str = parameter(
        Choice(names=("auto", "on", "off")), "auto",
        "for words: neurons that open only where one is about to be said, in place of "
        "a change that acts everywhere; auto where the model has gated MLPs",
        group="main",
    )  # fmt: skip
    max_neurons: Literal["auto"] | int = parameter(
        Auto(Whole(least=1), "a positive whole number"), "auto",
        "how many neurons the hinge may change; auto is a twentieth of an MLP's, up to "
        "a twelfth for long lists",
    )  # fmt: skip
    strength: Literal["auto"] | float = parameter(
        Auto(Scale(), Scale().expected), "auto",
        "how far outputs are pushed; auto sweeps on words and prompts set aside",
        group="main",
    )  # fmt: skip
    min_effect: float = parameter(
        Positive(metavar="RATIO"), 10.0,
        "perplexity of forbidden words, after over before",
        group="limits",
    )  # fmt: skip
    max_benign_loss: float = parameter(
        Positive(metavar="SHARE"), 0.05, "rise of benign words' perplexity",
        group="limits",
    )  # fmt: skip
    slack: Literal["auto"] | float = parameter(
        Auto(Scale(zero=True), Scale(zero=True).expected), "auto",
        "how soft the constraints are; 0 is hard, auto 1 for words and 10 otherwise",
    )  # fmt: skip
    ridge: float = parameter(
        Scale(), 1e-3,
        "ridge of the norm's inputs, relative to the mean squared input",
    )  # fmt: skip
    output_ridge: float | None = parameter(
        Optional(Scale(), word="none"), 1e-2,
        "ridge of the norm's outputs, relative to its mean; none for the plain norm",
    )  # fmt: skip
    solver: str = parameter(
        Choice(names=tuple(METHODS)), "exact", "how the constraints are solved"
    )
    max_rank: int = parameter(
        Whole(least=1), 256, "largest rank of a change; a neuron takes two"
    )
    calibration: CalibrationSize = parameter(
        Sizes(), CalibrationSize(), "how much text to calibrate with", flag=False
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        given = {"forbid": self.forbid, "examples": self.examples}
        given["harmful"] = self.harmful
        named = [kind for kind, texts in given.items() if texts is not None]
        if len(named) != 1:
            raise ArgumentError(
                f"{', '.join(given)}: got {' and '.join(named) or 'none'}; expected "
                "exactly one of them. Give words as forbid=, sentences about a concept "
                "as examples=, or requests as harmful="
            )

    @property
    def kind(self) -> Kind:
        """The parameter by which it is given what is not to be said."""
        if self.forbid is not None:
            return "forbid"
        return "examples" if self.examples is not None else "harmful"

    @property
    def texts(self) -> tuple[Any, ...]:
        """All that calibration texts depend on."""
        forbidden = getattr(self, self.kind)
        size, options = self.calibration, self.template_options
        return (self.kind, forbidden, self.preserve, self.answers, size, options)

    @property
    def wants_neurons(self) -> bool:
        """Whether neurons are to be changed, where the model has such."""
        if self.kind != "forbid" or self.hinge == "off":
            return False
        plain = self.layers == "auto" and self.matrix == "down_proj"
        usual = self.concepts in ("auto", "contrast")
        return self.hinge == "on" or (plain and usual)

    def without_strength(self) -> Self:
        """The same, but for the strength and the limits that it is chosen within."""
        own = type(self)
        return replace(
            self, strength="auto", min_effect=own.min_effect, max_kl=own.max_kl,
            max_benign_loss=own.max_benign_loss,
        )  # fmt: skip

    @property
    def on_tokens(self) -> bool:
        """Whether constraints are on tokens, where "auto" was resolved."""
        return self.concepts in TOKENWISE

    @property
    def chosen_slack(self) -> float:
        """The slack, where "auto" was resolved."""
        assert not isinstance(self.slack, str)
        return self.slack
