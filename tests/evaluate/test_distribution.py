# SPDX-License-Identifier: Apache-2.0
"""The distribution of an effect over words."""

from __future__ import annotations

import math

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from cintervene.evaluate.words.distribution import distribution
from cintervene.evaluate.words.records import WordPerplexity


def words(*ratios: float) -> list[WordPerplexity]:
    return [WordPerplexity(f"w{at}", 2.0, 2.0 * x) for at, x in enumerate(ratios)]


def test_a_tenth_of_the_words_is_at_most_at_the_percentile() -> None:
    found = distribution(words(*range(20, 0, -1)), goal=3.0)
    assert (found.words, found.tenth, found.median) == (20, 2.0, 10.0)
    assert (found.least.word, found.goal) == ("w19", 3.0)
    assert [word.word for word in found.below] == ["w19", "w18"]


def test_one_word_and_one_beyond_range() -> None:
    found = distribution(words(4.0), goal=4.0)
    assert (found.tenth, found.median, found.below) == (4.0, 4.0, [])
    found = distribution([*words(0.5), WordPerplexity("far", 9.0, math.inf)], goal=1.0)
    assert found.tenth == found.median == 0.5
    assert found.least.word == "w0"
