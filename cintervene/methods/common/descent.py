# SPDX-License-Identifier: Apache-2.0
"""The steps of a descent: the examples that each looks at, and taking them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
from torch import nn

from cintervene.activations.upper_layers import differentiable
from cintervene.utils.progress import Progress, counting

__all__ = ["minibatches", "take_steps"]

SEED = 0

T = TypeVar("T")


def minibatches(groups: Sequence[Sequence[T]], count: int) -> list[list[T]]:
    """All examples (or what stands for them) of the groups, in parts: fair samples.

    Topics and kinds of examples take turns, so equal steps would find only some.

    Parameters
    ----------
    groups : sequence of sequence
        Examples about one request, which stay together.
    count : int
        How many parts.
    """
    order = np.random.default_rng(SEED).permutation(len(groups))
    return [
        [example for at in order[k::count] for example in groups[at]]
        for k in range(count)
    ]


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
