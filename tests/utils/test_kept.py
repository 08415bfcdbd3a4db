# SPDX-License-Identifier: Apache-2.0
"""What calls inside a block have in common is worked out once."""

from __future__ import annotations

import pytest

from cintervene.utils.kept import keeping, kept


def test_results_are_kept_inside_a_block_while_they_depend_on_the_same() -> None:
    made: list[str] = []

    def call(name: str, depends_on: object) -> int:
        return kept(name, depends_on, lambda: made.append(name) or len(made))

    assert [call("a", [1]), call("a", [1])] == [1, 2]
    with keeping():
        assert [call("a", [1]), call("a", [1]), call("b", [1])] == [3, 3, 4]
        assert [call("a", [2]), call("b", [1])] == [5, 4]
        # One result a name, so that memory does not grow with what comes and goes.
        assert call("a", [1]) == 6
        with keeping():
            assert call("a", [1]) == 7
        assert call("a", [1]) == 6
    assert call("a", [1]) == 8


def test_what_could_not_be_made_is_not_kept() -> None:
    def fail() -> int:
        raise OSError("no")

    with keeping():
        assert kept("a", 1, lambda: 1) == 1
        with pytest.raises(OSError, match="no"):
            kept("a", 2, fail)
        assert kept("a", 1, lambda: 3) == 3
