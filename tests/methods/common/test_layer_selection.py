# SPDX-License-Identifier: Apache-2.0
"""Layers are chosen by how far apart they tell requests."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")


from cintervene.methods.common.layer_selection import best_run, separation


def test_separation_is_the_area_under_the_curve() -> None:
    rng = np.random.default_rng(0)
    harmful = np.array([True, False] * 20)
    apart = rng.standard_normal((40, 5)) + np.where(harmful, 9.0, -9.0)[:, None]
    assert separation(apart, harmful, 20) == 1.0
    apart[20:] *= -1
    assert separation(apart, harmful, 20) == 0.0


def test_the_best_evenly_spaced_layers_are_taken() -> None:
    scores = [0.9, 0.1, 0.9, 0.1, 0.9, 0.1, 0.9, 0.1, 0.9, 0.1, 0.95]
    assert list(best_run(scores)) == [2, 4, 6, 8, 10]
    assert list(best_run([0.2, 0.9, 0.3, 0.8])) == [1, 3]
    assert list(best_run([0.5])) == [0]
