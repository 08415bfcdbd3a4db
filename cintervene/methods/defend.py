# SPDX-License-Identifier: Apache-2.0
"""Every defence of a model, in one call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from inspect import signature
from typing import Any, Literal, TypedDict, Unpack, overload

from torch import nn

from cintervene.errors import ArgumentError
from cintervene.intervention.intervention import Intervention
from cintervene.methods.arr.adversary import PromptAttack
from cintervene.methods.arr.method import avoid_harm
from cintervene.methods.gate.method import (
    GateOptions,
    gate_refusals,
)
from cintervene.methods.pcr.config import Concepts, PCROptions
from cintervene.methods.pcr.method import keep_away
from cintervene.methods.tsr.config import TSROptions
from cintervene.methods.tsr.method import teach_refusal
from cintervene.prompts.calibration import CalibrationSize
from cintervene.prompts.refusal_examples import Safe
from cintervene.utils.literals import Matrix
from cintervene.utils.progress import Progress

__all__ = [
    "METHODS",
    "AvoidingOptions",
    "ForbiddingOptions",
    "GatingOptions",
    "RefusingOptions",
    "defend",
]

METHODS: dict[str, Callable[..., Intervention]] = {
    "pcr": keep_away,
    "tsr": teach_refusal,
    "arr": avoid_harm,
    "gate": gate_refusals,
}
# What `defend` names itself.
NAMED = ("model", "tokenizer", "forbid")


class _Common(TypedDict, total=False):
    layers: Literal["auto"] | Iterable[int]
    preserve: Iterable[str]
    max_kl: float
    progress: Progress


class _Projections(_Common, total=False):
    matrix: Matrix


class ForbiddingOptions(_Projections, total=False):
    """Options of ``method="pcr"``; see `keep_away`."""

    examples: Sequence[str] | None
    harmful: Sequence[str] | None
    concepts: Literal["auto"] | Concepts
    strength: Literal["auto"] | float
    min_effect: float
    max_benign_loss: float
    options: PCROptions | None
    budget: CalibrationSize | None


class _Requests(_Projections, total=False):
    harmful: Sequence[str] | None
    radius: float
    max_false_refusals: float
    options: TSROptions | None


class RefusingOptions(_Requests, total=False):
    """Options of ``method="tsr"``; see `teach_refusal`."""

    safe: Sequence[Safe] | None


class AvoidingOptions(_Requests, total=False):
    """Options of ``method="arr"``; see `avoid_harm`."""

    nats: float
    attack: PromptAttack | None
    attack_every: int
    attack_requests: int


class GatingOptions(_Common, total=False):
    """Options of ``method="gate"``; see `gate_refusals`."""

    harmful: Sequence[str] | None
    refusal: str | None
    max_false_refusals: float
    thresholds: Literal["auto"] | tuple[float, float]
    options: GateOptions | None


@overload
def defend(
    model: nn.Module,
    tokenizer: Any,
    forbid: Sequence[str] | None = None,
    *,
    method: Literal["pcr"] = "pcr",
    **options: Unpack[ForbiddingOptions],
) -> Intervention: ...


@overload
def defend(
    model: nn.Module,
    tokenizer: Any,
    *,
    method: Literal["tsr"],
    **options: Unpack[RefusingOptions],
) -> Intervention: ...


@overload
def defend(
    model: nn.Module,
    tokenizer: Any,
    *,
    method: Literal["arr"],
    **options: Unpack[AvoidingOptions],
) -> Intervention: ...


@overload
def defend(
    model: nn.Module,
    tokenizer: Any,
    *,
    method: Literal["gate"],
    **options: Unpack[GatingOptions],
) -> Intervention: ...


def defend(
    model: nn.Module,
    tokenizer: Any,
    forbid: Sequence[str] | None = None,
    *,
    method: str = "pcr",
    **options: Any,
) -> Intervention:
    """Find a small change of a few weights after which a model is safer.

    The model is left as it was; give the result to `Intervention.apply`.

    Parameters
    ----------
    model : nn.Module
        A causal language model of transformers.
    tokenizer
        Its tokenizer.
    forbid : sequence of str
        Words not to say, for ``"pcr"`` only.
    method : {"pcr", "tsr", "arr", "gate"}
        What is wanted of the model:

        - ``"pcr"``, point-constrained regions: that it does not say the words of
          `forbid`, nor what the sentences ``examples=`` are about, nor its answers to
          the requests ``harmful=``, whichever of them is given; see
          `models.keep_away`.
        - ``"tsr"``, towards the safe region: that it refuses the requests
          ``harmful=``; see `models.teach_refusal`.
        - ``"arr"``, away from the risk region: that its own answers to these become
          unlikely, the least defended most; see `models.avoid_harm`.
        - ``"gate"``: that it refuses them, by a few neurons of one layer that recognise
          them and are closed elsewhere; see `models.gate_refusals`.
    **options
        Those of the method, with its defaults. More about each is in the
        documentation of the method's own function.

        ====================  ==============  ========================================
        option                for             meaning
        ====================  ==============  ========================================
        `layers`              all             ``"auto"``, or indices of layers to change
        `matrix`              pcr, tsr, arr   ``"down_proj"`` or ``"o_proj"`` of a layer
        `preserve`            all             texts (pcr) or prompts to leave alone
        `max_kl`              all             drift allowed, nats a token
        `progress`            all             called as ``progress(phase, done, total)``
        `options`             all             details: `PCROptions`, `TSROptions`,
                                              `GateOptions`
        `examples`            pcr             sentences about what is not to come up
        `concepts`            pcr             ``"auto"``, ``"contrast"``,
                                              ``"unembedding"``, ``"activation"``,
                                              ``"difference"``: what stands for a word
        `strength`            pcr             ``"auto"``, or how far outputs are pushed
        `min_effect`          pcr             rise of the words' perplexity to reach
        `max_benign_loss`     pcr             rise of other words' perplexity allowed
        `budget`              pcr             `CalibrationSize`: how much material to build from
        `harmful`             all             requests; but for pcr the package's own
                                              without it
        `radius`              tsr, arr        largest relative size of a layer's change
        `max_false_refusals`  tsr, arr, gate  benign requests refused in addition
        `safe`                tsr             refusals that are all as good, as texts
                                              or tokens
        `refusal`             gate            what to say
        `thresholds`          gate            ``"auto"``, or log odds at which it opens
        `nats`                arr             how unlikely answers' tokens shall become
        `attack`              arr             looks for words that bring answers back
        `attack_every`        arr             steps between two attacks
        `attack_requests`     arr             requests attacked each time
        ====================  ==============  ========================================

    Returns
    -------
    Intervention

    Raises
    ------
    ArgumentError
        The method or an option is unknown, or an option is out of range.
    ModelError
        The model has no layers that can be changed.
    """
    if method not in METHODS:
        valid = ", ".join(repr(name) for name in METHODS)
        raise ArgumentError(f"method: got {method!r}; expected one of {valid}")
    _check_names(method, options)
    if method == "pcr":
        options["forbid"] = forbid
    elif forbid is not None:
        raise ArgumentError(
            f'forbid: is for method "pcr"; give harmful= to method {method!r}'
        )
    return METHODS[method](model, tokenizer, **options)


def _check_names(method: str, options: Iterable[str]) -> None:
    """Refuse options that the method has not, and name what may be meant."""
    known = option_names(method)
    for name in options:
        if name in known:
            continue
        others = [other for other in METHODS if name in option_names(other)]
        owners = f" (but of {', '.join(map(repr, others))})" if others else ""
        near = get_close_matches(name, known) or known
        raise ArgumentError(
            f"{name}: is no option of method {method!r}{owners}; did you mean "
            f"{', '.join(near)}?"
        )


def option_names(method: str) -> list[str]:
    """The names of a method's options in `defend`."""
    return [name for name in signature(METHODS[method]).parameters if name not in NAMED]
