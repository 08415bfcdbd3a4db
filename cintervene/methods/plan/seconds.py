# SPDX-License-Identifier: Apache-2.0
"""Seconds of a method, from what it multiplies and how fast this machine does that."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from time import process_time

import numpy as np
import torch

from cintervene import _core
from cintervene.methods.config import DescentConfig
from cintervene.methods.gate.config import GateConfig
from cintervene.methods.plan.material import EXAMPLE
from cintervene.methods.plan.memory import Sizes
from cintervene.utils.runtime import thread_limit

__all__ = ["seconds_of"]

# Orders of the products that tell the rates, and how often they are repeated.
PROBE, REPEATED = 512, 3
# Strengths that are tried, about; and how often a row passes the layers to tune.
STRENGTHS = 6
# A backward pass beside a forward one.
BACKWARD = 3
# Times the products with the weights of layers, for attention, norms and float32.
BESIDE = 1.5


def seconds_of(
    config: object, sizes: Sizes, neurons: bool, here: bool
) -> dict[str, float]:
    """Seconds of one core by kind of work; not `here`, without those of the model."""
    shape, material = sizes.shape, sizes.material
    layer = 2 * shape.hidden * (2 * sizes.shape.heads + shape.kept + 3 * shape.inner)
    model, head = layer * shape.layers, 2 * shape.vocabulary * shape.hidden
    below = layer * (shape.layers - sizes.above)
    answered = material.answered * (60 + material.answer) * model
    answered += material.answered * material.answer * head
    tuned = material.tune * layer * sizes.above + material.constrained * head
    steps = config.steps if isinstance(config, DescentConfig | GateConfig) else 0
    tokens: dict[str, float] = {
        "answers": answered,
        "capture": material.tokens * (below + layer * sizes.above),
        "tune": STRENGTHS * tuned,
    }
    if isinstance(config, DescentConfig):
        seen = material.tokens // min(config.parts, max(material.tokens // EXAMPLE, 1))
        tokens["steps"] = steps * BACKWARD * seen * (layer * sizes.above + head / 6)
    if isinstance(config, GateConfig):
        tokens["steps"] = steps * BACKWARD * 512 * (layer * sizes.above + head / 6)
    found = {"algebra": _algebra(config, sizes, neurons) / _double_rate()}
    if here:
        rate = _single_rate()
        found |= {name: BESIDE * work / rate for name, work in tokens.items()}
    return found


def _algebra(config: object, sizes: Sizes, neurons: bool) -> float:
    """Operations in float64."""
    d_in, hidden, material = sizes.d_in, sizes.shape.hidden, sizes.material
    rows, metric = material.constrained, 10 * hidden**3
    if isinstance(config, GateConfig):
        return 20.0 * 12_000 * hidden**2 + metric
    if isinstance(config, DescentConfig):
        made = material.kept * d_in**2 + d_in**3 / 3 + 2 * hidden * d_in**2
        step = 4 * hidden * d_in**2 + 4 * hidden**2 * d_in
        return sizes.changed * (made + metric + config.steps * step)
    if neurons:
        fitted = material.kept * d_in**2 + 0.7 * d_in**3
        return fitted + metric + 2 * hidden**3 + material.tokens * hidden**2
    few = 2 * material.kept <= d_in
    order = material.kept if few else d_in
    made = material.kept * d_in * order + order**3 / 3
    solved = 2 * rows * d_in * order + rows**2 * d_in + 12 * rows**2 * hidden
    return sizes.changed * (made + metric + STRENGTHS * (solved + 4 * hidden**3))


def _rate(work: float, run: Callable[[], object]) -> float:
    """Operations a second of one thread, at best."""
    times = []
    for _ in range(REPEATED):
        start = process_time()
        run()
        times.append(process_time() - start)
    return work / max(min(times), 1e-6)


@cache
def _double_rate() -> float:
    x = np.ones((PROBE, PROBE))
    with thread_limit(1):
        return _rate(2.0 * PROBE**3, lambda: _core.product_nt(x, x))


@cache
def _single_rate() -> float:
    """Of products in the models' own type, which are about as fast in float32."""
    x = torch.ones(PROBE, 2 * PROBE)
    return _rate(4.0 * PROBE**3, lambda: x @ x.T)
