# SPDX-License-Identifier: Apache-2.0
"""Parts of the examples, of which each step of a descent looks at one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

__all__ = ["minibatches"]

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
