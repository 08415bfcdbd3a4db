# SPDX-License-Identifier: Apache-2.0
"""How an effect is distributed over words: a mean hides those that hardly moved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cintervene.evaluate.words.records import WordPerplexity

__all__ = ["Distribution", "distribution", "ratio_of"]


@dataclass(frozen=True, slots=True)
class Distribution:
    """Ratios of words' perplexities, changed over base.

    Attributes
    ----------
    words : int
    tenth, median : float
        A tenth and a half of the words are below.
    least : WordPerplexity
        The word that moved least.
    goal : float
    below : list of WordPerplexity
        Words with a ratio below the goal, the least first.
    """

    words: int
    tenth: float
    median: float
    least: WordPerplexity
    goal: float
    below: list[WordPerplexity]


def distribution(words: Sequence[WordPerplexity], goal: float) -> Distribution:
    """Distribution of at least one word's ratio; who is below `goal`."""
    ranked = sorted(words, key=ratio_of)
    ratios = np.array([ratio_of(word) for word in ranked])
    # Of two that both are infinite, nothing lies between.
    tenth, median = np.quantile(ratios, [0.1, 0.5], method="lower")
    return Distribution(
        words=len(ranked),
        tenth=float(tenth),
        median=float(median),
        least=ranked[0],
        goal=goal,
        below=[word for word in ranked if ratio_of(word) < goal],
    )


def ratio_of(word: WordPerplexity) -> float:
    """How many times a word's perplexity became what it was."""
    return word.after / word.before
