# SPDX-License-Identifier: Apache-2.0
"""Strengths are chosen within limits."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")


from cintervene.methods.common.sweep import (
    Drift,
    choose,
)
from cintervene.methods.tsr.fit import RefusalPoint


def test_the_strongest_within_the_limits_is_chosen_and_no_more_than_needed() -> None:
    points = [
        RefusalPoint(0.5, 0.6, 0.0, 0.001),
        RefusalPoint(0.7, 0.9, 0.01, 0.002),
        RefusalPoint(0.8, 0.9, 0.02, 0.003),
        RefusalPoint(1.0, 1.0, 0.03, 0.002),
    ]
    assert choose(points, Drift(0.003, 0.02)).strength == 0.7
    assert choose(points, Drift(0.003, 0.05)).strength == 1.0
    assert choose(points, Drift(0.0001, 0.05)).strength == 0.5
