# SPDX-License-Identifier: Apache-2.0
"""What sequences have in common."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from cintervene.activations.batches import common_length


def test_common_length() -> None:
    assert common_length([[1, 2, 3], [1, 2], [1, 2, 4]]) == 2
    assert common_length([[1], [2]]) == 0
    assert common_length([[4, 5]]) == 2
