# SPDX-License-Identifier: Apache-2.0
"""Random changes of tiny models."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from cintervene.intervention.intervention import Intervention
from cintervene.models import find_targets
from cintervene.solvers.update import LowRankUpdate


def random_update(target: Any, size: float = 0.3, seed: int = 0) -> LowRankUpdate:
    source = np.random.default_rng(seed + target.layer)
    left = source.normal(size=(target.d_out, 3)) * size
    right = source.normal(size=(3, target.d_in)) * size
    return LowRankUpdate(left, right)


def random_intervention(
    model: Any, layers: Any = (1, 3), **options: Any
) -> Intervention:
    seed = options.pop("seed", 0)
    size = options.pop("size", 0.3)
    targets = find_targets(model, layers, matrix=options.pop("matrix", "down_proj"))
    pairs = [(target, random_update(target, size, seed)) for target in targets]
    return Intervention.of(model, pairs, **options)
