# SPDX-License-Identifier: Apache-2.0
"""Make a model refuse harmful requests: from prompts to an intervention.

Source: arXiv 2510.03567, towards the safe region (TSR).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from torch import nn

from cintervene import data
from cintervene.intervention.intervention import Intervention
from cintervene.methods.common.sweep import RefusalLimits
from cintervene.methods.tsr.config import TSROptions
from cintervene.methods.tsr.fit import learn
from cintervene.methods.tsr.problem import SafeRegion
from cintervene.prompts.refusal_examples import Safe
from cintervene.utils.literals import Matrix
from cintervene.utils.progress import (
    Progress,
    silent,
)
from cintervene.utils.validation import check_positive

__all__ = ["teach_refusal"]


def teach_refusal(
    model: nn.Module,
    tokenizer: Any,
    *,
    harmful: Sequence[str] | None = None,
    safe: Sequence[Safe] | None = None,
    layers: Literal["auto"] | Iterable[int] = "auto",
    matrix: Matrix = "down_proj",
    radius: float = 0.03,
    preserve: Iterable[str] = (),
    max_kl: float = 0.05,
    max_false_refusals: float = 0.03,
    options: TSROptions | None = None,
    progress: Progress = silent,
) -> Intervention:
    """Find a small change of some layers that makes a model refuse harmful requests.

    The model is left as it was; give the result to `Intervention.apply`.

    Parameters
    ----------
    model : nn.Module
        A causal language model of transformers.
    tokenizer
        Its tokenizer.
    harmful : sequence of str, optional
        Requests to refuse; the package's own without it.
    safe : sequence of str or of sequence of int, optional
        Refusals that are all as good: at each token of one, the loss is the negative
        log probability of all tokens with which one of them goes on. A text is the
        whole answer, which ends there; of more than 16 tokens only the first 16 are
        taught. A list of token ids is how an answer begins, to go on as the model
        likes: ``[[5], [7, 2]]`` begins with token 5, or with 7 and 2. One of the
        package's own without it: a model that learns several at once mixes them. Best
        are those with whose first word the model begins no other answer.
    layers : "auto" or iterable of int
        The layers that are changed. `"auto"` takes five whose projections' inputs tell
        harmful requests of the tuning split best from others.
    matrix : {"down_proj", "o_proj"}
        The projection of each that is changed: the MLP's or the attention's.
    radius : float
        Largest size of each layer's change, relative to the weight's, both in the norm
        of benign inputs and outputs or in the plain one (`TSROptions.ball`). The
        multiple that is chosen in the end may be up to twice as large.
    preserve : iterable of str
        Prompts to answer as before, besides the package's own.
    max_kl : float
        RefusalLimits allowed on benign requests of the tuning split, nats a token.
    max_false_refusals : float
        Share of those that may be refused beyond what the model did before.
    options : TSROptions, optional
        Details of the descent and of the norm.
    progress : callable, optional
        Called as ``progress(phase, done, total)``.

    Returns
    -------
    Intervention
        With `options`, and `metrics`: `strength`, `sweep`, `within_limits`, `steps`,
        `layers`, `seconds`.

    Raises
    ------
    ArgumentError
        An option is out of range, or there is nothing to refuse.
    ModelError
        The model has no layer that can be changed.
    """
    check_positive(radius=radius, max_kl=max_kl, max_false_refusals=max_false_refusals)
    return learn(
        model, tokenizer, SafeRegion, harmful,
        data.safe_refusals()[:1] if safe is None else safe, layers, preserve,
        {"method": "tsr", "radius": radius, "matrix": matrix},
        RefusalLimits(max_kl, max_false_refusals), options or TSROptions(), progress,
    )  # fmt: skip
