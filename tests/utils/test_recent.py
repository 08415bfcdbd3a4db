# SPDX-License-Identifier: Apache-2.0
"""Values that were computed lately are computed once, and forgotten in order."""

from __future__ import annotations

from cintervene.utils.recent import Recent


def test_values_are_computed_once_and_the_first_is_forgotten():
    known: Recent[int, int] = Recent(2)
    asked = []

    def value(key):
        return known.get(key, lambda: asked.append(key) or 10 * key)

    assert [value(key) for key in (1, 2, 1, 3, 2, 1)] == [10, 20, 10, 30, 20, 10]
    assert asked == [1, 2, 3, 1]
    assert known.find(7) is None
