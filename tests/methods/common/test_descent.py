# SPDX-License-Identifier: Apache-2.0
"""Parts of the examples are fair samples of them."""

from __future__ import annotations

import numpy as np
import pytest

from cintervene.methods.common.descent import minibatches


@pytest.mark.parametrize("parts", [1, 4, 7, 8])
def test_every_part_has_a_share_of_every_kind(parts: int) -> None:
    groups = [[(at % 4, at)] for at in range(320)]
    found = minibatches(groups, parts)
    assert sorted(at for part in found for _, at in part) == list(range(320))
    assert {len(part) for part in found} <= {320 // parts, 320 // parts + 1}
    for part in found:
        kinds = np.bincount([kind for kind, _ in part], minlength=4)
        assert kinds.min() > 0
        assert kinds.max() < 0.6 * len(part)


def test_groups_stay_together() -> None:
    found = minibatches([["a", "b"], ["c"], ["d", "e"]], 3)
    assert sorted(found) == [["a", "b"], ["c"], ["d", "e"]]
