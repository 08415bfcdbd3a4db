# SPDX-License-Identifier: Apache-2.0
"""Make a model refuse harmful requests: from prompts to an intervention.

Source: arXiv 2510.03567, TSR (towards the safe region); docs/methods/tsr.md.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

from cintervene import data
from cintervene.intervention.intervention import Intervention
from cintervene.methods.tsr.config import TSRConfig
from cintervene.methods.tsr.fit import fit
from cintervene.methods.tsr.problem import SafeRegion
from cintervene.utils.progress import Progress

__all__ = ["solve"]


def solve(
    model: nn.Module, tokenizer: Any, config: TSRConfig, progress: Progress
) -> Intervention:
    """Find a small change of some layers that makes a model refuse harmful requests.

    Parameters
    ----------
    model : nn.Module
        A causal language model of transformers.
    tokenizer
        Its tokenizer.
    config : TSRConfig
    progress : callable
        Called as ``progress(phase, done, total)``.

    Returns
    -------
    Intervention
        With `options`, and `metrics`: `strength`, `sweep`, `within_limits`, `steps`,
        `layers`, `seconds`.

    Raises
    ------
    ArgumentError
        A layer or a token is out of range, or there is nothing to refuse.
    ModelError
        The model has no layer that can be changed.
    """
    safe = data.safe_refusals()[:1] if config.safe is None else config.safe
    config = replace(config, safe=safe)
    return fit(model, tokenizer, SafeRegion, config, safe, progress)
