# SPDX-License-Identifier: Apache-2.0
"""The part of a model above a change: what it computes and its derivative."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from transformers import Cache

from cintervene.activations.upper_layers import UpperLayers, differentiable, logits_of
from cintervene.methods.common.objectives import set_loss
from cintervene.models import find_decoder, find_targets, find_unembedding

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
    model: Any, targets: Any, changes: Any, ids: list[int], split: int
) -> Any:
    """Logits of the whole model, the changes added from a position on by hooks."""

    def adding(change: Any) -> Any:
        def add(_module: Any, args: Any, y: Any) -> Any:
            moved = args[0].float() @ change
            behind = torch.arange(y.shape[1])[:, None] >= split
            return (y + torch.where(behind, moved, 0.0)).to(y)

        return add

    handles = [
        target.module.register_forward_hook(adding(change))
        for target, change in zip(targets, changes, strict=True)
    ]
    try:
        return model(torch.tensor([ids]), use_cache=False).logits[0]
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("splits", [[0] * 4, SPLITS])
@pytest.mark.parametrize("layers", [[0], [2], [3], [1, 2]])
def test_loss_and_gradient_are_those_of_the_whole_model(
    any_model: Any, layers: list[int], splits: list[int], matrix: Any
) -> None:
    decoder = find_decoder(any_model)
    targets = find_targets(any_model, layers, matrix)
    unembedding = find_unembedding(any_model)
    upper = UpperLayers(decoder, targets, SEQUENCES, splits, WANTED, 8)
    source = torch.Generator().manual_seed(2)
    starts = [torch.randn(t.d_in, t.d_out, generator=source) * 0.05 for t in targets]
    changes = [start.clone().requires_grad_() for start in starts]
    total = torch.zeros((), dtype=torch.float64)
    with differentiable(any_model):
        for batch in upper.batches:
            logits = logits_of(unembedding, upper.states(batch, changes))
            total = total + set_loss(logits, wanted_tokens(batch.owners)).sum()
        total.backward()
    assert len(upper.batches) > 1
    assert all(p.requires_grad and p.grad is None for p in any_model.parameters())

    others = [start.clone().requires_grad_() for start in starts]
    expected = torch.zeros((), dtype=torch.float64)
    tokens = iter(TOKENS)
    for one, wanted, split in zip(SEQUENCES, WANTED, splits, strict=True):
        logits = changed_whole(any_model, targets, others, one, split)
        p = torch.softmax(logits.double(), dim=-1)
        for position in wanted:
            expected = expected - p[position, next(tokens)].sum().log()
    gradients = torch.autograd.grad(expected, others)
    assert float(total.detach()) == pytest.approx(float(expected.detach()), rel=1e-4)
    for change, gradient in zip(changes, gradients, strict=True):
        assert change.grad is not None
        error = (change.grad - gradient).norm() / gradient.norm()
        assert float(error) < 1e-3


def test_without_a_change_the_states_are_the_models_own(
    any_model: Any, matrix: Any
) -> None:
    decoder = find_decoder(any_model)
    (target,) = find_targets(any_model, [1], matrix)
    upper = UpperLayers(decoder, [target], SEQUENCES, SPLITS, WANTED)
    assert not (matrix == "o_proj" and upper.additive)
    unembedding = find_unembedding(any_model)
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


@pytest.mark.parametrize("layer", [0, 1, 3])
def test_prefixes_need_run_no_further_than_the_change_to_see_its_inputs(
    any_model: Any, layer: int, matrix: Any
) -> None:
    decoder = find_decoder(any_model)
    targets = find_targets(any_model, [layer], matrix)
    whole, alone = (
        UpperLayers(decoder, targets, SEQUENCES, SPLITS, WANTED, above=above)
        for above in (True, False)
    )
    for one, other in zip(whole.batches, alone.batches, strict=True):
        torch.testing.assert_close(one.inputs, other.inputs)
    torch.testing.assert_close(whole.prefixes.inputs, alone.prefixes.inputs)


def test_batches_keep_no_keys_and_values_of_their_own(any_model: Any) -> None:
    """They are those of prefixes, once for each of thousands of sequences."""
    decoder = find_decoder(any_model)
    targets = find_targets(any_model, [2], "down_proj")
    upper = UpperLayers(decoder, targets, SEQUENCES, SPLITS, WANTED)
    for batch in upper.batches:
        noted = [
            value
            for args, kwargs in batch.arguments.values()
            for value in (*args, *kwargs.values())
        ]
        caches = [value for value in noted if isinstance(value, Cache)]
        assert caches or not upper.prefixes.plain
        assert not any(one.layers for one in caches)


def test_a_watcher_sees_inputs_and_outputs_of_all_targets(
    any_model: Any, matrix: Any
) -> None:
    decoder = find_decoder(any_model)
    targets = find_targets(any_model, [1, 2], matrix)
    unembedding = find_unembedding(any_model)
    upper = UpperLayers(decoder, targets, SEQUENCES, [0] * 4, WANTED)
    expected: dict[int, list[Any]] = {0: [], 1: []}
    handles = [
        target.module.register_forward_hook(
            lambda _m, args, _y, index=index: expected[index].append(args[0][0])
        )
        for index, target in enumerate(targets)
    ]
    with torch.no_grad():
        for one in SEQUENCES:
            any_model(torch.tensor([one]), use_cache=False)
    for handle in handles:
        handle.remove()
    for batch in upper.batches:
        seen: dict[int, Any] = {}

        def watch(index: int, inputs: Any, outputs: Any) -> None:
            outputs.retain_grad()
            seen[index] = (inputs, outputs)  # noqa: B023

        with differentiable(any_model):
            logits = logits_of(unembedding, upper.states(batch, None, watch))
            logits.square().sum().backward()
        for index, (inputs, outputs) in seen.items():
            assert outputs.grad.abs().sum() > 0.0
            for row, sequence in enumerate(batch.sequences):
                torch.testing.assert_close(
                    inputs[row, : len(SEQUENCES[sequence])].detach(),
                    expected[index][sequence], rtol=1e-4, atol=1e-4,
                )  # fmt: skip


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
