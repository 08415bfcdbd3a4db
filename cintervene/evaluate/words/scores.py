# SPDX-License-Identifier: Apache-2.0
"""Perplexities from the log-probabilities of tokens, before and after."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cintervene.evaluate.statistics.intervals import Estimate, bootstrap_mean
from cintervene.evaluate.statistics.paired import Change
from cintervene.evaluate.words.records import (
    GroupPerplexity,
    Perplexity,
    RunningText,
    WordPerplexity,
)
from cintervene.prompts.target_spans import TargetSpan
from cintervene.utils.arrays import Floats

__all__ = [
    "Scores", "group_perplexity", "item_sums", "perplexity", "running_text",
    "token_counts",
]  # fmt: skip


class Scores:
    """-log p of the target tokens of some spans.

    Parameters
    ----------
    spans : sequence of TargetSpan
        At least one.
    before, after : ndarray, shape (n,)
        Nats, one for each of the spans' `targets`, in their order.

    Attributes
    ----------
    sizes : ndarray, shape (spans,)
        Target tokens of each.
    before, after : ndarray, shape (spans,)
        Their nats, summed.
    first_before, first_after : ndarray, shape (spans,)
        Nats of each span's first target token.
    """

    def __init__(
        self, spans: Sequence[TargetSpan], before: Floats, after: Floats
    ) -> None:
        self.sizes = token_counts(spans)
        firsts = _starts(self.sizes)
        self.before, self.after = (item_sums(x, self.sizes) for x in (before, after))
        self.first_before, self.first_after = before[firsts], after[firsts]


def token_counts(spans: Sequence[TargetSpan]) -> Floats:
    """How many target tokens each span has."""
    return np.array([len(one.positions) for one in spans], dtype=np.float64)


def item_sums(values: Floats, sizes: Floats) -> Floats:
    """Sum over each run of `sizes` values."""
    sums: Floats = np.add.reduceat(values, _starts(sizes))
    return sums


def perplexity(
    sizes: Floats, before: Floats, after: Floats, groups: npt.ArrayLike | None = None
) -> Change:
    """Perplexity before and after, and their ratio.

    Parameters
    ----------
    sizes : ndarray, shape (n,)
        Tokens of each item.
    before, after : ndarray, shape (n,)
        Nats of each item.
    groups : array_like of int, shape (n,), optional
        Items that are resampled together; default: each is its own.
    """

    def exponential(totals: Floats) -> Estimate:
        return bootstrap_mean(totals, sizes, groups=groups).map(_exp)

    return Change(
        exponential(before), exponential(after), exponential(after - before), "ratio"
    )


def group_perplexity(
    spans: Sequence[TargetSpan], scores: Scores, *, sampled: bool
) -> GroupPerplexity:
    """Perplexity of a group of words, by place in the answer and by token.

    Parameters
    ----------
    spans : sequence of TargetSpan
        Answers that say the words, at both places.
    scores : Scores
        Of these spans.
    sampled : bool
        Whether the words are a sample of others like them: then words are resampled.
        Otherwise they are the whole population, and answers are resampled.
    """
    words = list(dict.fromkeys(one.word for one in spans))
    numbers = {word: number for number, word in enumerate(words)}
    index = np.array([numbers[one.word] for one in spans])
    later = np.array([one.later for one in spans])
    groups = index if sampled else np.arange(len(index))

    def by_place(sizes: Floats, before: Floats, after: Floats) -> Perplexity:
        places = (~later, later, np.ones_like(later))
        starting, after_start, together = (
            perplexity(sizes[at], before[at], after[at], groups[at]) for at in places
        )
        return Perplexity(starting, after_start, together)

    ones = np.ones(len(index))
    return GroupPerplexity(
        words=len(words),
        answers=len(spans),
        all_tokens=by_place(scores.sizes, scores.before, scores.after),
        first_token=by_place(ones, scores.first_before, scores.first_after),
        by_word=_by_word(words, index, scores),
    )


def running_text(spans: Sequence[TargetSpan], scores: Scores) -> RunningText:
    """Perplexity of the words that texts go on with, one text for each word."""
    ones, words = np.ones(len(spans)), [one.word for one in spans]
    return RunningText(
        words=len(spans),
        all_tokens=perplexity(scores.sizes, scores.before, scores.after),
        first_token=perplexity(ones, scores.first_before, scores.first_after),
        by_word=_by_word(words, np.arange(len(words)), scores),
    )


def _by_word(
    words: Sequence[str], index: npt.NDArray[np.int64], scores: Scores
) -> list[WordPerplexity]:
    """Each word's perplexity; `index` says which word each span is of."""
    tokens, before, after = (
        np.bincount(index, values)
        for values in (scores.sizes, scores.before, scores.after)
    )
    return [
        WordPerplexity(word, _exp(old), _exp(new))
        for word, old, new in zip(words, before / tokens, after / tokens, strict=True)
    ]


def _starts(sizes: Floats) -> npt.NDArray[np.int64]:
    starts: npt.NDArray[np.int64] = (np.cumsum(sizes) - sizes).astype(np.int64)
    return starts


def _exp(nats: float) -> float:
    try:
        return math.exp(nats)
    except OverflowError:
        return math.inf
