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

# Words whose further tokens share a neuron, and the share of neurons that these take at
# most.
SHARED, MOST_SHARED = 4, 1 / 3


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
    shared = min(-(-len(longer) // SHARED), int(most * MOST_SHARED))
    begin = _merged(rows, range(words), max(1, most - shared))
    if not shared:
        return begin
    return begin + _even(rows, longer, -(-len(longer) // shared))


def _merged(rows: HingeRows, words: Sequence[int], count: int) -> list[Group]:
    """At most so many groups for where words begin.

    Those whose least alike words are the most alike are merged first, and none grows
    to more than twice the mean.
    """
    alike = _alike(rows, words, begins=True)
    np.fill_diagonal(alike, -np.inf)
    largest = 2 * -(-len(words) // count)
    groups = [[place] for place in range(len(words))]
    sizes = np.ones(len(words), dtype=int)
    for _ in range(len(words) - count):
        usable = np.add.outer(sizes, sizes) <= largest
        one, two = sorted(
            divmod(int(np.where(usable, alike, -np.inf).argmax()), len(words))
        )
        groups[one] += groups[two]
        groups[two] = []
        alike[one] = alike[:, one] = np.minimum(alike[one], alike[two])
        alike[two] = alike[:, two] = -np.inf
        sizes[one] += sizes[two]
    return [Group([words[place] for place in group], True) for group in groups if group]


def _even(rows: HingeRows, words: Sequence[int], size: int) -> list[Group]:
    """Groups of so many words for where these go on, each of words alike there."""
    alike = _alike(rows, words, begins=False)
    left, groups = list(range(len(words))), []
    while left:
        chosen = [left.pop(0)]
        while len(chosen) < size and left:
            nearest = max(left, key=lambda i: float(alike[chosen, i].mean()))
            left.remove(nearest)
            chosen.append(nearest)
        groups.append(Group([words[place] for place in chosen], False))
    return groups


def _alike(rows: HingeRows, words: Sequence[int], begins: bool) -> Floats:
    """Cosines between words where they are said, (words, words)."""
    means = np.stack([_mean(rows, Group([word], begins)) for word in words])
    means -= means.mean(axis=0)
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    means /= np.maximum(lengths, np.finfo(float).tiny)
    cosines: Floats = means @ means.T
    return cosines


def _mean(rows: HingeRows, group: Group) -> Floats:
    mean: Floats = rows.said[group.of(rows)].mean(axis=0, dtype=np.float64)
    return mean
