# SPDX-License-Identifier: Apache-2.0
"""Work that is shared among one: all of it is done here, in its order."""

from __future__ import annotations

import pickle

import pytest

import cintervene as ci
from cintervene.utils import ranks

pytest.importorskip("torch")


class Picky(Exception):
    """Is not made anew of what it says."""

    def __init__(self, one: int, other: int) -> None:
        super().__init__(f"{one} and {other}")


def test_one_does_all() -> None:
    done: list[int] = []
    with ci.joined():
        assert (ranks.rank(), ranks.world()) == (0, 1)
        assert ranks.deal("squares", [3, 1, 2], lambda x: x * x, done.append) == [
            9, 1, 4,
        ]  # fmt: skip
        assert list(ranks.deal_in_rounds("same", "abc", str.upper)) == ["A", "B", "C"]
        assert ranks.of_one("five", lambda: 5, owner=7) == 5
        assert ranks.is_own(3)
    assert done == [3, 1, 2]


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan")])
def test_timeouts_are_positive(seconds: float) -> None:
    with pytest.raises(ci.ArgumentError, match="rank_timeout"), ci.joined(seconds):
        pass


def test_errors_that_cannot_be_sent_are_sent_as_text() -> None:
    found = pickle.loads(ranks._portable(Picky(1, 2), 3))
    assert type(found) is RuntimeError
    assert str(found) == "Picky: 1 and 2"
    assert found.__notes__[0].startswith("On rank 3:")


@pytest.mark.parametrize(
    ("said", "short"),
    [
        ("[/gloo/pair.cc:553] Connection closed by peer [::1]:1. This is typical",
         "connection closed by peer"),
        ("[buffer.cc:9] Timed out waiting 4000ms for send operation to complete",
         "timed out waiting 4000ms for send operation to complete"),
    ],
)  # fmt: skip
def test_what_gloo_says_is_cut(said: str, short: str) -> None:
    assert ranks._sentence(RuntimeError(said)) == short
