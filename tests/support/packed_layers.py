# SPDX-License-Identifier: Apache-2.0
"""Layers whose weights are packed."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

nn = torch.nn


class Codes(nn.Module):
    """Integers and one scale for all."""

    def __init__(self, base: Any) -> None:
        super().__init__()
        weight = base.weight.detach()
        self.scale = float(weight.abs().max()) / 127
        self.register_buffer("qweight", (weight / self.scale).round().to(torch.int8))
        self.bias = base.bias
        self.in_features = base.in_features

    def forward(self, x: Any) -> Any:
        return nn.functional.linear(x, self.qweight.to(x) * self.scale, self.bias)


def with_packed(model: Any, kind: Any, layer: int = 3) -> Any:
    mlp = model.model.layers[layer].mlp
    mlp.down_proj = kind(mlp.down_proj)
    return model
