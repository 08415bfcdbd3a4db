# SPDX-License-Identifier: Apache-2.0
"""The part of a model above a change: what it computes and its derivative."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from cintervene.models import find_decoder, find_targets, find_unembedding  # noqa: E402
from cintervene.models.batches import common_length  # noqa: E402
from cintervene.models.set_loss import divergence_loss, set_loss  # noqa: E402
from cintervene.models.upper import Upper, differentiable, logits_of  # noqa: E402

SEQUENCES = [
    [5, 9, 4, 7, 8, 9, 10, 11],
    [5, 9, 4, 12, 13],
    [5, 9, 4, 7, 8, 21, 22],
    [5, 9, 6, 30, 31, 32, 33, 34, 35],
]
SPLITS = [5, 3, 5, 4]
WANTED = [[5, 6, 7], [4], [6], [7, 8]]
TOKENS = [[4, 7], [8], [9, 3, 2], [5], [6, 60], [61], [62, 63]]


def wanted_tokens(owners: Any) -> list[list[int]]:
    """The sets of the wanted rows, sequence by sequence in the order of `owners`."""
    starts = np.cumsum([0, *(len(one) for one in WANTED)])
    sets: list[list[int]] = []
    for sequence in dict.fromkeys(owners.tolist()):
        sets.extend(TOKENS[starts[sequence] : starts[sequence + 1]])
    return sets


def changed_whole(
    model: Any, target: Any, change: Any, ids: list[int], split: int
) -> Any:
    """Logits of the whole model, the change added from a position on by a hook."""

    def add(_module: Any, args: Any, y: Any) -> Any:
        moved = args[0].float() @ change
        behind = torch.arange(y.shape[1])[:, None] >= split
        return (y + torch.where(behind, moved, 0.0)).to(y)

    handle = target.module.register_forward_hook(add)
    try:
        return model(torch.tensor([ids]), use_cache=False).logits[0]
    finally:
        handle.remove()


@pytest.mark.parametrize("splits", [[0] * 4, SPLITS])
@pytest.mark.parametrize("layer", [0, 2, 3])
def test_loss_and_gradient_are_those_of_the_whole_model(
    any_model: Any, layer: int, splits: list[int]
) -> None:
    decoder = find_decoder(any_model)
    (target,) = find_targets(any_model, [layer], decoder)
    unembedding = find_unembedding(any_model, decoder)
    upper = Upper(any_model, target, SEQUENCES, splits, WANTED, decoder, batch_tokens=8)
    source = torch.Generator().manual_seed(2)
    start = torch.randn(target.d_in, target.d_out, generator=source) * 0.05
    change = start.clone().requires_grad_()
    total = torch.zeros((), dtype=torch.float64)
    with differentiable(any_model):
        for batch in upper.batches:
            logits = logits_of(unembedding, upper.states(batch, change))
            total = total + set_loss(logits, wanted_tokens(batch.owners)).sum()
        total.backward()
    assert len(upper.batches) > 1
    assert all(p.requires_grad and p.grad is None for p in any_model.parameters())

    other = start.clone().requires_grad_()
    expected = torch.zeros((), dtype=torch.float64)
    tokens = iter(TOKENS)
    for one, wanted, split in zip(SEQUENCES, WANTED, splits, strict=True):
        logits = changed_whole(any_model, target, other, one, split)
        p = torch.softmax(logits.double(), dim=-1)
        for position in wanted:
            expected = expected - p[position, next(tokens)].sum().log()
    (gradient,) = torch.autograd.grad(expected, other)
    assert float(total.detach()) == pytest.approx(float(expected.detach()), rel=1e-4)
    assert change.grad is not None
    error = (change.grad - gradient).norm() / gradient.norm()
    assert float(error) < 1e-3


def test_without_a_change_the_states_are_the_models_own(any_model: Any) -> None:
    decoder = find_decoder(any_model)
    (target,) = find_targets(any_model, [1], decoder)
    upper = Upper(any_model, target, SEQUENCES, SPLITS, WANTED, decoder)
    unembedding = find_unembedding(any_model, decoder)
    with torch.no_grad():
        for batch in upper.batches:
            found = logits_of(unembedding, upper.states(batch, None))
            rows = [
                any_model(torch.tensor([SEQUENCES[s]])).logits[0, p]
                for s in batch.sequences
                for p in WANTED[s]
            ]
            torch.testing.assert_close(found, torch.stack(rows), rtol=1e-4, atol=1e-4)
            assert batch.real.sum(1).tolist() == [
                len(SEQUENCES[s]) - SPLITS[s] for s in batch.sequences
            ]


def test_parameters_want_gradients_again_after_an_interruption(tiny_model: Any) -> None:
    model = tiny_model("llama").train()
    next(model.parameters()).requires_grad_(False)
    before = [p.requires_grad for p in model.parameters()]
    seen = []

    def interrupt() -> None:
        with differentiable(model):
            seen.append(model.training or model.lm_head.weight.requires_grad)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    assert seen == [False]
    assert model.training
    assert [p.requires_grad for p in model.parameters()] == before


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


def test_common_length() -> None:
    assert common_length([[1, 2, 3], [1, 2], [1, 2, 4]]) == 2
    assert common_length([[1], [2]]) == 0
    assert common_length([[4, 5]]) == 2
