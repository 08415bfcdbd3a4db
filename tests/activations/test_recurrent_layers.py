# SPDX-License-Identifier: Apache-2.0
"""Layers that remember otherwise than attention does, or hand things on."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from support.architectures import build
from support.characters import Characters
from support.tiny_models import make_tiny_model

from cintervene.activations.capture import capture
from cintervene.activations.layer_stream import LayerStream
from cintervene.activations.next_token import next_logits
from cintervene.activations.upper_layers import UpperLayers, differentiable, logits_of
from cintervene.errors import ModelError
from cintervene.models.decoder import find_decoder
from cintervene.models.parts import ModelParts, explain
from cintervene.models.trace import hooked
from cintervene.prompts.chat import generate

TOKENIZER = Characters()
SIZE = TOKENIZER.vocab_size
# State space, convolution, linear attention, shared keys and values, experts with a
# gated MLP beside them, a past that is kept where nobody can reach it.
KINDS = [
    "bamba", "gemma4_text", "lfm2", "mamba2", "qwen2_moe", "qwen3_5_text", "deepseek_v3"
]  # fmt: skip
BEGINNING = [5, 9, 2, 7, 11]
SEQUENCES = [
    [*BEGINNING, *rest]
    for rest in ([3, 8], [40, 3, 12, 6, 1, 30], [22, 9, 4], [8, 8, 1, 5])
]
SPLITS = [6, 6, 5, 0]


@pytest.fixture(params=KINDS)
def model(request: pytest.FixtureRequest) -> Any:
    return build(request.param, SIZE)


def own_logits(model: Any, ids: Sequence[int]) -> Any:
    with torch.no_grad():
        return model(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0]


def test_padding_and_prefixes_do_not_get_into_a_state(model: Any) -> None:
    expected = torch.stack([own_logits(model, ids)[-1] for ids in SEQUENCES])
    found = next_logits(ModelParts.find(model), SEQUENCES)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_captured_rows_are_what_the_projection_reads(model: Any) -> None:
    (target,) = ModelParts.find(model).targets([-1], "down_proj")
    passed: list[Any] = []
    with hooked(
        target.module, lambda _m, x, y: passed.append((x[0].clone(), y.clone()))
    ):
        for ids in SEQUENCES:
            own_logits(model, ids)
    rows = capture(model, SEQUENCES, [-1], slice(None))[target.layer]
    for found, own in zip(
        (rows.inputs, rows.outputs), zip(*passed, strict=True), strict=True
    ):
        flat = torch.cat([one.reshape(-1, one.shape[-1]) for one in own])
        torch.testing.assert_close(found, flat, rtol=1e-3, atol=1e-4)


def changed_logits(
    model: Any, targets: Any, changes: Any, ids: Sequence[int], split: int
) -> Any:
    """Logits of the whole model, the changes added from a position on by hooks."""

    def adding(change: Any) -> Any:
        def add(_module: Any, args: Any, y: Any) -> Any:
            behind = torch.arange(len(ids))[:, None] >= split
            return y + torch.where(behind, args[0] @ change, 0.0)

        return add

    with ExitStack() as stack:
        for target, change in zip(targets, changes, strict=True):
            stack.enter_context(hooked(target.module, adding(change)))
        return model(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0]


def test_upper_layers_are_those_of_the_whole_model(model: Any) -> None:
    """Values and gradients, of changes that begin behind prefixes."""
    parts = ModelParts.find(model)
    targets = parts.targets([1, 2], "down_proj")
    wanted = [[len(ids) - 1] for ids in SEQUENCES]
    upper = UpperLayers(parts.decoder, targets, SEQUENCES, SPLITS, wanted, 8)
    source = torch.Generator().manual_seed(2)
    changes = [
        (torch.randn(t.d_in, t.d_out, generator=source) * 0.05).requires_grad_()
        for t in targets
    ]
    found, expected = torch.zeros(()), torch.zeros(())
    with differentiable(model):
        for batch in upper.batches:
            states = upper.states(batch, changes)
            logits = logits_of(parts.unembedding, states).log_softmax(-1)
            found = found + logits[:, 7].sum()
        for ids, split in zip(SEQUENCES, SPLITS, strict=True):
            logits = changed_logits(model, targets, changes, ids, split)
            expected = expected + logits[-1].log_softmax(-1)[7]
        own = torch.autograd.grad(expected, changes)
        gradients = torch.autograd.grad(found, changes)
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-4)
    for gradient, one in zip(gradients, own, strict=True):
        assert float((gradient - one).norm() / one.norm()) < 1e-3


@pytest.mark.parametrize("name", [*KINDS, "mamba", "rwkv", "codegen", "minimax"])
def test_answers_are_the_same_in_company(name: str) -> None:
    model = build(name, SIZE)
    prompts = [[*SEQUENCES[1], 50 + i] for i in range(3)] + SEQUENCES
    together = generate(model, TOKENIZER, prompts, 4)
    for prompt, answer in zip(prompts, together, strict=True):
        ids = list(prompt)
        for token in answer:
            assert int(own_logits(model, ids)[-1].argmax()) == token
            ids.append(token)


def test_a_fork_does_not_write_to_what_layers_share() -> None:
    model = build("gemma4_text", SIZE)
    parts = ModelParts.find(model)
    assert parts.decoder.hands_on
    (target,) = parts.targets([1], "down_proj")
    stream = LayerStream(parts.decoder, SEQUENCES, 0, wanted=[[-1]] * len(SEQUENCES))
    expected = stream.fork().final()
    ahead = stream.fork()
    ahead.advance(0, torch.ones(target.d_out, target.d_in))
    ahead.final()
    assert torch.equal(stream.final(), expected)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("gemma3n_text", "Gemma3n.*layers that hand on 4 hidden states side by side"),
        ("deepseek_v4", "DeepseekV4.*layers that hand on 4 hidden states side by side"),
        ("paligemma", "lets tokens see later ones"),
    ],
)
def test_what_explain_refuses_is_refused_before_anything_is_run(
    name: str, reason: str
) -> None:
    with pytest.raises(ModelError, match=reason):
        explain(build(name, SIZE))


def test_a_layer_that_reads_what_another_left_is_refused() -> None:
    model = make_tiny_model("llama")
    first, second = model.model.layers[1], model.model.layers[2]
    own = second.forward
    left: list[Any] = []
    first.register_forward_hook(lambda _m, _x, y: left.append(y))
    second.forward = lambda x, *args, **kwargs: own(
        x + left.pop()[:, :1], *args, **kwargs
    )
    with pytest.raises(ModelError, match=r"layers\.2 c"):
        find_decoder(model)
