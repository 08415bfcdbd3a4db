# SPDX-License-Identifier: Apache-2.0
"""Directions of the residual stream are the gradients of the logits."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from cintervene.errors import ModelError
from cintervene.models import find_decoder, find_targets, find_unembedding
from cintervene.models import unembedding as unembedding_module
from cintervene.models.parts import ModelParts
from cintervene.models.unembedding import WideHead, is_tied, unembedding_of


def logit_gradients(norm: Any, weight: Any, x: Any) -> Any:
    """Gradients of w . norm(x) for each row w, by automatic differentiation."""
    x = x.clone().requires_grad_(True)
    logits = weight @ norm(x)
    return torch.stack(
        [torch.autograd.grad(logit, x, retain_graph=True)[0] for logit in logits]
    )


def without_spread(gradients: Any, x: Any, centred: bool) -> Any:
    """Take out the direction along which only the norm's spread changes."""
    axis = x - x.mean() if centred else x
    axis = axis / axis.norm()
    return gradients - (gradients @ axis)[:, None] * axis


def test_directions_are_logit_gradients(any_model: Any) -> None:
    unembedding = find_unembedding(any_model)
    x = torch.randn(24, generator=torch.Generator().manual_seed(0)) * 3
    ids = [5, 90, 33]
    gradients = logit_gradients(unembedding.norm, unembedding.weight[ids].detach(), x)
    centred = unembedding.centred
    spread = (x - x.mean() if centred else x).square().mean().sqrt()
    expected = without_spread(unembedding.directions(ids), x, centred)
    torch.testing.assert_close(gradients * spread, expected, rtol=1e-3, atol=1e-4)
    assert unembedding.directions([]).shape == (0, 24)


def test_directions_of_a_projection_behind_a_norm(tiny_model: Any) -> None:
    model = tiny_model("gemma2")
    target = find_targets(model, [-1])[0]
    unembedding = find_unembedding(model)
    assert target.after is not None
    through = unembedding.directions([4], target) / unembedding.directions([4])
    expected = 1.0 + target.after.weight.detach()
    torch.testing.assert_close(through[0], expected)


def test_conventions(any_model: Any) -> None:
    unembedding = find_unembedding(any_model)
    kind = any_model.config.model_type
    weight = unembedding.norm.weight.detach()
    one = 1.0 if kind.startswith("gemma") else 0.0
    torch.testing.assert_close(unembedding.norm_weight, weight + one)
    assert unembedding.centred == (kind == "gpt2")
    assert unembedding.softcap == (30.0 if kind == "gemma2" else None)
    assert unembedding.tied == any_model.config.tie_word_embeddings
    assert unembedding.weight is any_model.get_output_embeddings().weight


def test_models_without_a_head_are_not_tied(tiny_model: Any) -> None:
    model = tiny_model("llama")
    assert is_tied(model)
    assert not is_tied(model.model)
    assert not is_tied(torch.nn.Linear(2, 2))


def test_logits(any_model: Any) -> None:
    found = find_decoder(any_model)
    last = next(call for call in found.calls if call.module is found.layers[-1])
    logits = unembedding_of(found).logits(last.y)
    torch.testing.assert_close(logits, found.calls[-1].y, rtol=1e-4, atol=1e-5)


def test_scaled_logits(tiny_model: Any) -> None:
    model = tiny_model("llama")
    plain = find_unembedding(model)
    model.register_forward_hook(lambda _m, _x, out: {"logits": 3 * out["logits"]})
    found = find_unembedding(model)
    assert found.scale == pytest.approx(3.0, rel=1e-5)
    rows = found.directions([5, 7])
    torch.testing.assert_close(rows, 3 * plain.directions([5, 7]))


def test_logits_that_are_bent_are_refused(tiny_model: Any) -> None:
    model = tiny_model("llama")
    model.register_forward_hook(lambda _m, _x, out: {"logits": out["logits"] ** 3})
    with pytest.raises(ModelError, match="does more to its logits"):
        find_unembedding(model)


def test_model_without_a_head(tiny_model: Any) -> None:
    with pytest.raises(ModelError, match="no plain unembedding"):
        find_unembedding(tiny_model("llama").model)


def test_unknown_norm_is_refused(tiny_model: Any) -> None:
    model = tiny_model("llama")
    norm = model.model.norm
    norm.forward = lambda x: torch.tanh(x) * norm.weight
    with pytest.raises(ModelError, match="neither an RMSNorm nor a LayerNorm"):
        find_unembedding(model)


def test_parts_are_found_by_one_forward_pass(any_model: Any) -> None:
    runs: list[int] = []
    handle = any_model.register_forward_hook(lambda *_: runs.append(1))
    parts = ModelParts.find(any_model)
    targets = parts.targets([1, 3], "down_proj")
    handle.remove()
    assert len(runs) == 1
    assert parts.model is any_model
    assert parts.decoder.module is any_model.get_decoder()
    assert parts.unembedding.norm is find_unembedding(any_model).norm
    names = [target.name for target in find_targets(any_model, [1, 3])]
    assert [target.name for target in targets] == names


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_a_large_head_is_widened_some_rows_at_a_time(
    dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = torch.Generator().manual_seed(0)
    weight = torch.randn(70, 24, generator=random).to(dtype)
    states, shares = torch.randn(5, 24, generator=random), torch.rand(5, 70)
    rows = weight.float()
    whole = WideHead(weight)
    assert torch.equal(whole.products(states), states @ rows.T)
    assert torch.equal(whole.mixed(shares), shares @ rows)
    monkeypatch.setattr(unembedding_module, "HELD", 0)
    monkeypatch.setattr(unembedding_module, "TOKENS", 16)
    large = WideHead(weight)
    torch.testing.assert_close(large.products(states), states @ rows.T)
    torch.testing.assert_close(large.mixed(shares), shares @ rows)
    parts, blocks = zip(*large.blocks(), strict=True)
    assert [len(block) for block in blocks] == [16, 16, 16, 16, 6]
    assert torch.equal(torch.cat([rows[part] for part in parts]), torch.cat(blocks))
    assert large._weight.data_ptr() == weight.data_ptr()  # Not a copy.
