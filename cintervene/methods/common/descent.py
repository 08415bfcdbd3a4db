# SPDX-License-Identifier: Apache-2.0
"""The steps of a descent, taken and reported."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from cintervene.activations.upper_layers import differentiable
from cintervene.utils.progress import Progress, counting

__all__ = ["take_steps"]


def take_steps(
    model: nn.Module, steps: Iterable[dict[str, Any]], count: int, progress: Progress
) -> list[dict[str, Any]]:
    """Take all steps of a descent; return what each measured.

    Parameters
    ----------
    model : nn.Module
        Whose activations are differentiated meanwhile.
    steps : iterable of dict
        Takes a step for each item drawn.
    count : int
        How many there will be.
    progress : callable
    """
    report = counting(progress, "learning to refuse", count)
    measured = []
    with differentiable(model):
        for metrics in steps:
            measured.append(metrics)
            report(1)
    return measured
