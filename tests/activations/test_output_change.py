# SPDX-License-Identifier: Apache-2.0
"""What a change of a weight adds to outputs, some rows at a time."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from cintervene.activations.output_change import ROWS, OutputChange
from cintervene.models.parts import ModelParts
from cintervene.solvers.update import LowRankUpdate


@pytest.mark.parametrize("length", [0, 3, ROWS])
def test_each_row_has_its_own_change(tiny_model: Any, length: int) -> None:
    (target,) = ModelParts.find(tiny_model("llama")).targets([-1], "down_proj")
    drawn = torch.Generator().manual_seed(0)
    left, right, x, y = (
        torch.randn(*shape, generator=drawn)
        for shape in (
            (target.d_out, 2), (2, target.d_in), (3, length, target.d_in),
            (length, 3, target.d_out),
        )
    )  # fmt: skip
    # Outputs need not lie in memory as inputs do.
    y = y.transpose(0, 1).bfloat16()
    change = OutputChange(LowRankUpdate(left.numpy(), right.numpy()), target)
    changed = change(x.bfloat16(), y)
    assert changed.dtype == torch.bfloat16
    expected = y.double() + x.bfloat16().double() @ (left @ right).double().T
    torch.testing.assert_close(changed.double(), expected, rtol=2**-7, atol=2**-7)
