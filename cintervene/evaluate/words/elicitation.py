# SPDX-License-Identifier: Apache-2.0
"""Whether words are still said when they are asked for in other ways than by name."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cintervene.evaluate.statistics.paired import rate_change
from cintervene.evaluate.words.obedience import says
from cintervene.evaluate.words.probes import Probe
from cintervene.evaluate.words.records import Elicited

__all__ = ["TOGETHER", "elicited"]

TOGETHER = "all together"


def elicited(
    attempts: Sequence[Probe], before: Sequence[str], after: Sequence[str]
) -> list[Elicited]:
    """Shares of answers that say the word, before and after, by strategy.

    Parameters
    ----------
    attempts : sequence of Probe
    before, after : sequence of str
        The answer to each, without its prefill.

    Returns
    -------
    list of Elicited
        All together first; none without attempts. Rates have Wilson's intervals,
        their differences Newcombe's.
    """
    old, new = (
        np.array(
            [says(text, one.word) for one, text in zip(attempts, said, strict=True)]
        )
        for said in (before, after)
    )
    used = np.array([one.strategy for one in attempts])
    groups = {name: used == name for name in dict.fromkeys(used.tolist())}
    if groups:
        groups = {TOGETHER: np.ones(len(attempts), dtype=bool), **groups}
    return [
        Elicited(name, int(part.sum()), rate_change(old[part], new[part]))
        for name, part in groups.items()
    ]
