# SPDX-License-Identifier: Apache-2.0
"""Keep a model from harmful answers, whatever it says instead.

Source: arXiv 2510.03567, ARR (away from the risk region); docs/methods/arr.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import nn

from cintervene.errors import ArgumentError
from cintervene.intervention.intervention import Intervention
from cintervene.methods.arr.adversary import Adversary
from cintervene.methods.arr.config import ARRConfig
from cintervene.methods.arr.problem import RiskRegion
from cintervene.methods.tsr.fit import fit
from cintervene.utils.progress import Progress

__all__ = ["solve"]


def solve(
    model: nn.Module, tokenizer: Any, config: ARRConfig, progress: Progress
) -> Intervention:
    """Find a small change of some layers that makes harmful answers unlikely.

    Parameters
    ----------
    model : nn.Module
        A causal language model of transformers.
    tokenizer
        Its tokenizer.
    config : ARRConfig
    progress : callable
        Called as ``progress(phase, done, total)``.

    Returns
    -------
    Intervention
        As that of TSR; `refused` in the sweep is the share of requests whose answers
        reach half of `nats`, and steps have `worst`, the nats of the request that is
        least defended.

    Raises
    ------
    ArgumentError, ModelError
        As with TSR, or the attack is on another model.
    """
    adversary = _adversary(model, tokenizer, config)
    region = partial(RiskRegion, nats=config.nats, adversary=adversary)
    return fit(model, tokenizer, region, config, None, progress)


def _adversary(model: nn.Module, tokenizer: Any, config: ARRConfig) -> Adversary | None:
    attack = config.attack
    if attack is None:
        return None
    if isinstance(attack, Mapping):
        raise ArgumentError(
            f"attack: got only what was recorded of it, {attack!r}; give the attack "
            "itself, or None"
        )
    if getattr(attack, "model", model) is not model:
        raise ArgumentError("attack: is on another model; make one on this model")
    return Adversary(
        attack, tokenizer, config.requests, config.attack_every, config.attack_requests
    )
