# SPDX-License-Identifier: Apache-2.0
"""Which words share a neuron.

Where a word begins, a model has said nothing of it yet; its further tokens follow from
those before. So these are told by other detectors, and as they are told easily, several
words share one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cintervene.methods.pcr.hinge.rows import HingeRows
from cintervene.utils.arrays import Floats

__all__ = ["Group", "grouped"]

# Words whose further tokens share a neuron.
SHARED = 4


@dataclass(frozen=True)
class Group:
    """Words that share a neuron.

    Attributes
    ----------
    words : list of int
        Their numbers.
    begins : bool
        Whether it opens where one of them begins, or else where one goes on.
    """

    words: list[int]
    begins: bool

    def of(self, rows: HingeRows) -> npt.NDArray[np.bool_]:
        """Which of the rows where a word is said it is for."""
        kind = rows.first if self.begins else ~rows.first
        return kind & np.isin(rows.owners, self.words)


def grouped(rows: HingeRows, words: int, most: int) -> list[Group]:
    """Group words so that there are at most so many groups, alike ones together."""
    longer = np.unique(rows.owners[~rows.first]).tolist()
    shared = min(-(-len(longer) // SHARED), most // (SHARED + 1))
    begin = _alike(rows, range(words), True, -(-words // max(1, most - shared)))
    if not shared:
        return begin
    return begin + _alike(rows, longer, False, -(-len(longer) // shared))


def _alike(
    rows: HingeRows, words: Sequence[int], begins: bool, size: int
) -> list[Group]:
    """Groups of so many words, each with those most like it where they are said."""
    means = np.stack([_mean(rows, Group([word], begins)) for word in words])
    means -= means.mean(axis=0)
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    means /= np.maximum(lengths, np.finfo(float).tiny)
    alike = means @ means.T
    left, groups = list(range(len(words))), []
    while left:
        chosen = [left.pop(0)]
        while len(chosen) < size and left:
            nearest = max(left, key=lambda i: float(alike[chosen, i].mean()))
            left.remove(nearest)
            chosen.append(nearest)
        groups.append(Group([words[place] for place in chosen], begins))
    return groups


def _mean(rows: HingeRows, group: Group) -> Floats:
    mean: Floats = rows.said[group.of(rows)].mean(axis=0, dtype=np.float64)
    return mean
