# SPDX-License-Identifier: Apache-2.0
"""Strengths are chosen within limits."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")


from cintervene.methods.common.sweep import RefusalLimits, mildest_within
from cintervene.methods.tsr.fit import RefusalSweepPoint


def test_the_strongest_within_the_limits_is_chosen_and_no_more_than_needed() -> None:
    points = [
        RefusalSweepPoint(0.5, 0.6, 0.0, 0.001),
        RefusalSweepPoint(0.7, 0.9, 0.01, 0.002),
        RefusalSweepPoint(0.8, 0.9, 0.02, 0.003),
        RefusalSweepPoint(1.0, 1.0, 0.03, 0.002),
    ]
    assert mildest_within(points, RefusalLimits(0.003, 0.02)).strength == 0.7
    assert mildest_within(points, RefusalLimits(0.003, 0.05)).strength == 1.0
    assert mildest_within(points, RefusalLimits(0.0001, 0.05)).strength == 0.5
