# SPDX-License-Identifier: Apache-2.0
"""Keep a model from harmful answers, whatever it says instead.

Source: arXiv 2510.03567, away from the risk region (ARR).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, Literal

from torch import nn

from cintervene.models.intervention import Intervention
from cintervene.models.layer_descent import Drift, check_positive, learn
from cintervene.models.risk_region import RiskRegion
from cintervene.models.safe_region import TSROptions
from cintervene.models.targets import Matrix
from cintervene.progress import Progress, silent

__all__ = ["avoid_harm"]


def avoid_harm(
    model: nn.Module,
    tokenizer: Any,
    *,
    harmful: Sequence[str] | None = None,
    layers: Literal["auto"] | Iterable[int] = "auto",
    matrix: Matrix = "down_proj",
    radius: float = 0.03,
    nats: float = 5.0,
    preserve: Iterable[str] = (),
    max_kl: float = 0.05,
    max_false_refusals: float = 0.05,
    options: TSROptions | None = None,
    progress: Progress = silent,
) -> Intervention:
    """Find a small change of some layers that makes harmful answers unlikely.

    The answers are the model's own to the harmful requests. What the model says in
    their place is left to it, so `teach_refusal` is what makes it say no.

    Parameters
    ----------
    model, tokenizer, harmful, layers, matrix, radius, preserve, max_kl, \
max_false_refusals, options, progress
        As in `teach_refusal`; `first_token` of the options is not used.
    nats : float
        Negative log probability asked for a token of such an answer, on average.

    Returns
    -------
    Intervention
        As that of `teach_refusal`; `refused` in the sweep is the share of requests
        whose answers reach half of `nats`, and steps have `worst`, the nats of the
        request that is least defended.

    Raises
    ------
    ArgumentError, ModelError
        As `teach_refusal`.
    """
    check_positive(
        radius=radius, nats=nats, max_kl=max_kl, max_false_refusals=max_false_refusals
    )
    return learn(
        model, tokenizer, partial(RiskRegion, nats=nats), harmful, None, layers,
        preserve,
        {"method": "arr", "radius": radius, "matrix": matrix, "nats": nats},
        Drift(max_kl, max_false_refusals), options or TSROptions(), progress,
    )  # fmt: skip
