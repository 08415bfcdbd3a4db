# SPDX-License-Identifier: Apache-2.0
"""Products of half precision where the processor is slow at them."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn
from torch.nn.functional import linear, scaled_dot_product_attention

from cintervene.models.precision import WidenedProducts, quick_products
from cintervene.models.weights import add_update
from cintervene.solvers.update import LowRankUpdate

HALF = [torch.bfloat16, torch.float16]


@pytest.fixture
def slow(monkeypatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")


def random(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3)).to(dtype)


@pytest.mark.parametrize("dtype", HALF)
def test_products_are_those_of_float32_rounded_once(slow, dtype) -> None:
    x, weight = random(5, 40, dtype=dtype), nn.Parameter(random(7, 40, dtype=dtype))
    expected = (x.double() @ weight.double().T).float()
    ulp = torch.finfo(dtype).eps * expected.abs().clamp_min(1.0)
    with quick_products(), torch.no_grad():
        into = torch.empty(5, 7, dtype=dtype)
        for found in (
            linear(x, weight),
            linear(input=x, weight=weight),
            x @ weight.T,
            torch.mm(x, weight.T, out=into),
            into,
        ):
            assert found.dtype == dtype
            assert (found.float() - expected).abs().le(ulp).all()


def test_attention_is_that_of_float32(slow) -> None:
    x = random(2, 3, 6, 8, dtype=torch.bfloat16)
    wide = scaled_dot_product_attention(*[x.float()] * 3, is_causal=True)
    with quick_products():
        found = scaled_dot_product_attention(x, x, x, is_causal=True)
    assert torch.equal(found, wide.bfloat16())


def test_gradients_reach_inputs_and_weights(slow) -> None:
    x = random(4, 6, dtype=torch.bfloat16).requires_grad_()
    weight = nn.Parameter(random(3, 6, dtype=torch.bfloat16))
    with quick_products():
        linear(x, weight).sum().backward()
    assert torch.equal(x.grad, weight.detach().float().sum(0).bfloat16().expand(4, 6))
    assert torch.equal(weight.grad, x.detach().float().sum(0).bfloat16().expand(3, 6))


def test_a_weight_that_changes_is_widened_again(slow) -> None:
    x = torch.eye(6, dtype=torch.bfloat16)
    weight = nn.Parameter(random(6, 6, dtype=torch.bfloat16))
    update = LowRankUpdate(np.ones((6, 1), np.float32), np.ones((1, 6), np.float32))
    with quick_products(), torch.no_grad():
        assert torch.equal(linear(x, weight).T, weight)
        add_update(weight, update, transposed=False)
        assert torch.equal(linear(x, weight).T, weight)
        weight.mul_(2.0)
        assert torch.equal(linear(x, weight).T, weight)


def test_other_types_are_left_alone(slow) -> None:
    x = random(4, 6, dtype=torch.float32)
    with quick_products():
        assert torch.equal(x @ x.T, torch.matmul(x, x.T))
        assert (x.double() @ x.double().T).dtype == torch.float64


def test_it_is_entered_once_and_only_where_it_helps(slow, monkeypatch) -> None:
    entered = []
    enter = WidenedProducts.__enter__
    monkeypatch.setattr(
        WidenedProducts, "__enter__", lambda self: entered.append(self) or enter(self)
    )
    with quick_products(), quick_products():
        assert len(entered) == 1
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    with quick_products():
        assert len(entered) == 1
