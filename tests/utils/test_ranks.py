# SPDX-License-Identifier: Apache-2.0
"""Work that is shared among one: all of it is done here, in its order."""

from __future__ import annotations

import json

import pytest

import cintervene as ci
from cintervene.utils import ranks

pytest.importorskip("torch")


class Picky(OSError):
    """Is not made anew of what it says."""

    def __init__(self, one: int, other: int) -> None:
        super().__init__(f"{one} and {other}")


class Wordy(ci.ArgumentError):
    """Says something else each time that it is made."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no {name}")


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


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (ci.ModelError("no model"), ci.ModelError, "no model"),
        # They end with the exit code of their kind, on all ranks with the same one.
        (Picky(1, 2), OSError, "Picky: 1 and 2"),
        (Wordy("words"), ci.ArgumentError, "Wordy: no words"),
        (json.JSONDecodeError("odd", "{", 1), json.JSONDecodeError,
         "odd: line 1 column 2 (char 1)"),
    ],
)  # fmt: skip
def test_errors_arrive_as_they_are_or_as_the_nearest_kind(
    error: Exception, kind: type[Exception], said: str
) -> None:
    found = ranks._arrived(ranks._portable(error, 3))
    assert type(found) is kind
    assert str(found) == said
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


def test_ranks_that_do_not_meet_are_told_of_their_network() -> None:
    said = (
        "Gloo connectFullMesh failed with [/gloo/tcp/pair.cc:152] timed out connecting:"
        " remote=[127.0.0.1]:86\nException raised from makeDeviceForHostname"
    )
    found = str(ranks.apart(RuntimeError(said)))
    assert found.startswith(
        "ranks: do not come together (Gloo connectFullMesh failed with timed out "
        "connecting: remote=[127.0.0.1]:86); see"
    )
    assert "GLOO_SOCKET_IFNAME" in found
