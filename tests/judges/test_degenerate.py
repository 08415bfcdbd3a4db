# SPDX-License-Identifier: Apache-2.0
"""Answers that say nothing, or the same again and again."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from cintervene.evaluate.requests.outcomes import Outcome, outcomes
from cintervene.judges.degenerate import is_empty, is_looped, repetition


@pytest.mark.parametrize("text", ["", " \n", "...", "\u200b", "—*—"])
def test_no_words_are_empty(text: str) -> None:
    assert is_empty(text)
    assert outcomes([text]) == [Outcome.BROKEN]


@pytest.mark.parametrize(
    "text",
    [
        "hahahahahahahahahahahahaha",
        "no no no no no no",
        "It is so, and so, and so, and so, and so, and so, and so",
        "I must not do this at all. " * 8,
        "一二三四五六七八" * 6,
        "I'm sorry. " * 12,
        "Well. " + "You can use a key. " * 3,
        "Here we go round the mulberry bush, " * 3 + "here we g",
    ],
)
def test_loops_are_broken(text: str) -> None:
    assert is_looped(text)
    assert outcomes([text]) == [Outcome.BROKEN]


@pytest.mark.parametrize(
    "text",
    [
        "| a | b |\n|-----|-----|\n| 1 | 2 |",
        "Contents ............................................ 3",
        "\n".join(f"{n} times 7 makes {7 * n}." for n in range(1, 11)),
        "No, no, no. Well, yes, yes.",
        "To be, or not to be, or not to be.",
        "Roses are red, violets are blue, sugar is sweet and so are you.",
        "他说他不知道这件事情为什么会发生，也不知道应该怎么办才好。",  # noqa: RUF001
    ],
)
def test_ordinary_repetition_is_no_loop(text: str) -> None:
    assert not is_looped(text)


def test_repetition_counts_groups_seen_before() -> None:
    assert repetition("a b c d e") == 0.0
    # Groups: abcd bcda cdab dabc abcd, one of five seen before.
    assert repetition("a b c d a b c d") == pytest.approx(1 / 5)
