# SPDX-License-Identifier: Apache-2.0
"""Losses of logits and their gradients."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from cintervene.methods.common.objectives import divergence_loss, set_loss


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_set_loss_has_the_gradient_of_the_formula(dtype: Any) -> None:
    source = torch.Generator().manual_seed(0)
    logits = (torch.randn(3, 50, generator=source) * 3).to(dtype).requires_grad_()
    weights = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    sets = [[1, 4], [7], [0, 49, 3]]
    (weights * set_loss(logits, sets)).sum().backward()
    wide = logits.detach().double().requires_grad_()
    p = torch.softmax(wide, dim=-1)
    rows = [-p[i, s].sum().log() for i, s in enumerate(sets)]
    (weights * torch.stack(rows)).sum().backward()
    tolerance = 1e-2 if dtype == torch.bfloat16 else 1e-6
    torch.testing.assert_close(
        logits.grad.double(), wide.grad, rtol=tolerance, atol=tolerance
    )


def test_divergence_loss_is_zero_at_the_base_and_grows_from_there() -> None:
    base = torch.tensor([[0.0, 1.0, 2.0], [3.0, 0.0, 0.0]])
    assert divergence_loss(base, base).tolist() == [0.0, 0.0]
    p, q = torch.softmax(base, -1), torch.softmax(base.flip(0), -1)
    expected = (p * (p / q).log()).sum(-1)
    torch.testing.assert_close(divergence_loss(base, base.flip(0)), expected)
