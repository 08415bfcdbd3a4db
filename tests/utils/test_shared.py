# SPDX-License-Identifier: Apache-2.0
"""Changes of the whole process that several need at once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cintervene.utils.shared import SharedChange


def test_the_first_makes_it_and_the_last_takes_it_back() -> None:
    done: list[str] = []

    def make() -> Callable[[], object]:
        done.append("made")
        return lambda: done.append("undone")

    change = SharedChange(make)
    with change:
        with change:
            assert done == ["made"]
        assert done == ["made"]
    assert done == ["made", "undone"]
    # In the order in which threads may leave.
    change.__enter__()
    change.__enter__()
    change.__exit__(None, None, None)
    assert done[2:] == ["made"]
    change.__exit__(None, None, None)
    assert done[2:] == ["made", "undone"]


def test_it_is_taken_back_after_an_error() -> None:
    done: list[str] = []
    change = SharedChange(lambda: lambda: done.append("undone"))
    with pytest.raises(ZeroDivisionError), change:
        raise ZeroDivisionError
    assert done == ["undone"]
