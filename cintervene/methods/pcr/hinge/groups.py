# SPDX-License-Identifier: Apache-2.0
"""Which words share a neuron.

Where a word begins, a model has said nothing of it yet; its further tokens follow from
those before. So these are told by other detectors, and as they are told more easily,
several words share one where neurons are short. A word of several tokens is unsaid
where it does not go on, and a phrase where its last part does not come: of long lists
neurons are for these places and for words of one token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from cintervene.methods.pcr.hinge.rows import HingeRows
from cintervene.utils.arrays import Floats

__all__ = ["Group", "grouped"]

# Words whose further tokens share a neuron at most where neurons are short, and the
# share of neurons that these take then.
SHARED, MOST_SHARED = 4, 1 / 3
# Words that share a neuron where they begin; where more would, the list is long.
CROWDED = 3


@dataclass(frozen=True)
class Group:
    """Words that share a neuron.

    Attributes
    ----------
    words : list of int
        Their numbers.
    begins : bool
        Whether it opens where one of them begins, or else where one goes on.
    enough : bool
        Whether it opens only where that is enough: see `HingeRows`.
    """

    words: list[int]
    begins: bool
    enough: bool = False

    def of(self, rows: HingeRows) -> npt.NDArray[np.bool_]:
        """Which of the rows where a word is said it is for."""
        kind = rows.first if self.begins else ~rows.first
        if self.enough:
            kind = kind & rows.enough
        return kind & np.isin(rows.owners, self.words)


def grouped(rows: HingeRows, most: int) -> list[Group]:
    """Group words so that there are at most so many groups, alike ones together."""
    starting = _owners(rows, rows.first)
    longer = _owners(rows, ~rows.first)
    shared = _shared(starting, longer, most)
    long = shared > 0 and len(starting) > CROWDED * (most - shared)
    if long:
        starting = _owners(rows, rows.first & rows.enough)
        longer = _owners(rows, ~rows.first & rows.enough)
        shared = _shared(starting, longer, most)
    begin, on = (
        [Group([word], begins, long) for word in words]
        for words, begins in ((starting, True), (longer, False))
    )
    groups = _merged(rows, begin, max(1, most - shared))
    if shared:
        groups += _even(rows, on, -(-len(longer) // shared))
    return groups


def _owners(rows: HingeRows, which: npt.NDArray[np.bool_]) -> list[int]:
    """The words that some of the rows where one is said belong to."""
    owners: list[int] = np.unique(rows.owners[which]).tolist()
    return owners


def _shared(starting: Sequence[int], longer: Sequence[int], most: int) -> int:
    """How many neurons there are for where words go on."""
    # What beginnings leave, one for each word at most.
    fewest = min(-(-len(longer) // SHARED), int(most * MOST_SHARED))
    return max(fewest, min(len(longer), most - len(starting)))


def _merged(rows: HingeRows, alone: Sequence[Group], count: int) -> list[Group]:
    """At most so many groups of words that there is a group each of.

    Those whose least alike words are the most alike are merged first, and none grows
    to more than twice the mean.
    """
    if len(alone) <= count:
        return list(alone)
    alike = _alike(rows, alone)
    np.fill_diagonal(alike, -np.inf)
    largest = 2 * -(-len(alone) // count)
    groups = [[place] for place in range(len(alone))]
    sizes = np.ones(len(alone), dtype=int)
    for _ in range(len(alone) - count):
        usable = np.add.outer(sizes, sizes) <= largest
        one, two = sorted(
            divmod(int(np.where(usable, alike, -np.inf).argmax()), len(alone))
        )
        groups[one] += groups[two]
        groups[two] = []
        alike[one] = alike[:, one] = np.minimum(alike[one], alike[two])
        alike[two] = alike[:, two] = -np.inf
        sizes[one] += sizes[two]
    return [_together(alone, group) for group in groups if group]


def _even(rows: HingeRows, alone: Sequence[Group], size: int) -> list[Group]:
    """Groups of so many words for where these go on, each of words alike there."""
    alike = _alike(rows, alone)
    left, groups = list(range(len(alone))), []
    while left:
        chosen = [left.pop(0)]
        while len(chosen) < size and left:
            nearest = max(left, key=lambda i: float(alike[chosen, i].mean()))
            left.remove(nearest)
            chosen.append(nearest)
        groups.append(_together(alone, chosen))
    return groups


def _together(alone: Sequence[Group], places: Sequence[int]) -> Group:
    """One group of some."""
    words = [word for place in places for word in alone[place].words]
    return replace(alone[0], words=words)


def _alike(rows: HingeRows, groups: Sequence[Group]) -> Floats:
    """Cosines between groups where their words are said, (groups, groups)."""
    means = np.stack([_mean(rows, group) for group in groups])
    means -= means.mean(axis=0)
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    means /= np.maximum(lengths, np.finfo(float).tiny)
    cosines: Floats = means @ means.T
    return cosines


def _mean(rows: HingeRows, group: Group) -> Floats:
    mean: Floats = rows.said[group.of(rows)].mean(axis=0, dtype=np.float64)
    return mean
