# SPDX-License-Identifier: Apache-2.0
"""The layer stream agrees with plain forward passes, before and after changes."""

from __future__ import annotations

import copy
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from cintervene.activations.capture import capture
from cintervene.activations.layer_stream import LayerStream
from cintervene.errors import ArgumentError, ModelError
from cintervene.models import find_decoder, find_targets, find_unembedding
from cintervene.prompts.target_spans import TargetSpan
from cintervene.solvers.update import LowRankUpdate

IDS = [[5, 9, 3, 7, 11, 2, 8], [4], [13, 6, 1, 9, 9], list(range(20, 31))]
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


def random_update(target: Any, rank: int = 2, size: float = 0.5) -> LowRankUpdate:
    source = torch.Generator().manual_seed(target.layer)
    left = torch.randn(target.d_out, rank, generator=source) * size
    right = torch.randn(rank, target.d_in, generator=source) * size
    return LowRankUpdate(left, right)


def reference(
    model: Any, ids: Any, layer: int, matrix: Any = "down_proj"
) -> tuple[Any, Any]:
    """Inputs and outputs of one projection, one unpadded sequence at a time."""
    seen: list[tuple[Any, Any]] = []
    module = find_targets(model, [layer], matrix=matrix)[0].module
    handle = module.register_forward_hook(
        lambda _m, args, y: seen.append((args[0][0], y[0]))
    )
    with torch.no_grad():
        for one in ids:
            model(input_ids=torch.tensor([one]))
    handle.remove()
    return [x for x, _ in seen], [y for _, y in seen]


def changed(
    model: Any, factors: dict[int, LowRankUpdate], matrix: Any = "down_proj"
) -> Any:
    """A copy of the model with dense changes of its weights."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        for target in find_targets(other, factors, matrix=matrix):
            pair = factors[target.layer]
            delta = torch.tensor(pair.matrix())
            target.weight.add_(delta.T if target.transposed else delta)
    return other


def all_of(ids: Any) -> list[slice]:
    return [slice(None)] * len(ids)


def test_rows_of_every_layer(any_model: Any, matrix: Any) -> None:
    """Also where sequences are longer than the sliding window of 5."""
    stream = LayerStream(
        find_decoder(any_model),
        IDS,
        1,
        wanted=all_of(IDS),
        batch_tokens=14,
        matrix=matrix,
    )
    for layer in (1, 2, 3):
        rows = stream.run(layer)
        inputs, outputs = reference(any_model, IDS, layer, matrix)
        torch.testing.assert_close(rows.inputs, torch.cat(inputs), **TOLERANCE)
        torch.testing.assert_close(rows.outputs, torch.cat(outputs), **TOLERANCE)
    assert rows.sequences.tolist() == [i for i, one in enumerate(IDS) for _ in one]
    assert rows.positions.tolist() == [p for one in IDS for p in range(len(one))]


@pytest.mark.parametrize("keep_bytes", [0, 1 << 28])
def test_changes_reach_the_layers_above(
    any_model: Any, keep_bytes: int, matrix: Any
) -> None:
    targets = find_targets(any_model, (1, 2), matrix=matrix)
    factors = {target.layer: random_update(target) for target in targets}
    other = changed(any_model, factors, matrix)
    inputs, outputs = reference(other, IDS, 3, matrix)
    stream = LayerStream(
        find_decoder(any_model),
        IDS,
        1,
        wanted=all_of(IDS),
        keep_bytes=keep_bytes,
        matrix=matrix,
    )
    for layer, pair in factors.items():
        stream.run(layer)
        stream.advance(layer, pair)
    rows = stream.run(3)
    torch.testing.assert_close(rows.inputs, torch.cat(inputs), **TOLERANCE)
    torch.testing.assert_close(rows.outputs, torch.cat(outputs), **TOLERANCE)


def test_advance_without_run(any_model: Any) -> None:
    """Scoring needs no rows: a changed layer is run once, with the change in it."""
    target = find_targets(any_model, [1])[0]
    pair = random_update(target)
    stream = LayerStream(find_decoder(any_model), IDS, 0, wanted=all_of(IDS))
    stream.advance(1, torch.tensor(pair.matrix()))
    stream.advance(3)
    logits = find_unembedding(any_model).logits(stream.hidden())
    other = changed(any_model, {1: pair})
    with torch.no_grad():
        expected = [other(input_ids=torch.tensor([one])).logits[0] for one in IDS]
    torch.testing.assert_close(logits, torch.cat(expected), rtol=1e-3, atol=1e-4)


def count_runs(model: Any, layer: int) -> list[int]:
    """The batch sizes with which a layer is called from now on."""
    sizes: list[int] = []
    module = find_decoder(model).layers[layer]
    module.register_forward_hook(lambda _m, args, _y: sizes.append(args[0].shape[0]))
    return sizes


def test_attention_is_not_run_again(tiny_model: Any) -> None:
    model = tiny_model("llama")
    target = find_targets(model, [2])[0]
    stream = LayerStream(find_decoder(model), IDS[2:3] * 5, 2)
    sizes = count_runs(model, 2)
    stream.run(2)
    stream.advance(2, random_update(target))
    # The batch of five once; the other calls are those of the probe, a single sequence.
    assert sizes.count(5) == 1
    assert set(sizes) <= {1, 5}


def test_layers_whose_mlp_reads_the_change_are_run_again(tiny_model: Any) -> None:
    """Also where that MLP hardly reacts, so that doubling shows no difference."""
    model = tiny_model("llama")
    with torch.no_grad():
        model.model.layers[2].mlp.down_proj.weight.mul_(1e-3)
    (target,) = find_targets(model, [2], matrix="o_proj")
    pair = random_update(target)
    stream = LayerStream(
        find_decoder(model), IDS, 2, wanted=all_of(IDS), matrix="o_proj"
    )
    stream.run(2)
    stream.advance(2, pair)
    inputs, _ = reference(changed(model, {2: pair}, "o_proj"), IDS, 3, "o_proj")
    torch.testing.assert_close(stream.run(3).inputs, torch.cat(inputs), **TOLERANCE)


def test_layers_behind_a_norm_are_run_again(tiny_model: Any) -> None:
    model = tiny_model("gemma3")
    target = find_targets(model, [2])[0]
    stream = LayerStream(find_decoder(model), IDS[2:3] * 5, 2)
    sizes = count_runs(model, 2)
    stream.run(2)
    stream.advance(2, random_update(target))
    assert sizes.count(5) == 2


def test_positions(tiny_model: Any) -> None:
    model = tiny_model("qwen2")
    wanted = [[-1, 0], [], slice(1, 3), [4]]
    rows = LayerStream(find_decoder(model), IDS, 2, wanted=wanted, batch_tokens=8).run(
        2
    )
    inputs, _ = reference(model, IDS, 2)
    expected = [inputs[0][6], inputs[0][0], inputs[2][1], inputs[2][2], inputs[3][4]]
    torch.testing.assert_close(rows.inputs, torch.stack(expected), **TOLERANCE)
    assert rows.sequences.tolist() == [0, 0, 2, 2, 3]
    assert rows.positions.tolist() == [6, 0, 1, 2, 4]


def test_spans_say_which_rows_are_wanted(tiny_model: Any) -> None:
    decoder = find_decoder(tiny_model("qwen2"))
    spans = [TargetSpan(tuple(one), start=2) for one in IDS]
    rows = LayerStream.of(decoder, spans, 2).run(2)
    wanted = [span.positions for span in spans]
    expected = LayerStream(decoder, IDS, 2, wanted=wanted).run(2)
    assert rows.positions.tolist() == [p for one in wanted for p in one]
    torch.testing.assert_close(rows.inputs, expected.inputs, rtol=0, atol=0)
    (last,) = LayerStream.of(decoder, spans[:1], 2, wanted=[[-1]]).run(2).positions
    assert last == len(IDS[0]) - 1


def test_streamed_rows_leave_through_the_sink(tiny_model: Any) -> None:
    model = tiny_model("phi3")
    chunks: list[tuple[Any, Any]] = []
    stream = LayerStream(
        find_decoder(model),
        IDS,
        1,
        streamed=[[], slice(None), [0, 1], slice(None)],
        batch_tokens=11,
    )
    rows = stream.run(1, sink=lambda x, y: chunks.append((x, y)))
    assert rows.inputs.shape == (0, 40)
    inputs, outputs = reference(model, IDS, 1)
    # Batches go from long sequences to short ones.
    expected = torch.cat([inputs[3], inputs[2][:2], inputs[1]])
    torch.testing.assert_close(torch.cat([x for x, _ in chunks]), expected, **TOLERANCE)
    expected = torch.cat([outputs[3], outputs[2][:2], outputs[1]])
    torch.testing.assert_close(torch.cat([y for _, y in chunks]), expected, **TOLERANCE)
    assert len(chunks) > 1


def test_fork_is_independent(tiny_model: Any) -> None:
    model = tiny_model("mistral")
    target = find_targets(model, [1])[0]
    stream = LayerStream(find_decoder(model), IDS, 1, wanted=[[-1]] * len(IDS))
    before = stream.run(1)
    fork = stream.fork()
    fork.advance(1, random_update(target))
    moved = fork.run(2).inputs
    torch.testing.assert_close(stream.run(1).inputs, before.inputs)
    still = stream.run(2).inputs
    assert (moved - still).norm() > 0.1 * still.norm()
    torch.testing.assert_close(
        still, torch.stack([x[-1] for x in reference(model, IDS, 2)[0]]), **TOLERANCE
    )


def test_model_is_left_as_it_was(tiny_model: Any) -> None:
    model = tiny_model("llama").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    target = find_targets(model, [1])[0]
    stream = LayerStream(find_decoder(model), IDS, 1)
    stream.run(1)
    stream.advance(1, random_update(target))
    assert all(
        torch.equal(before[name], value) for name, value in model.state_dict().items()
    )
    assert all("forward" not in module.__dict__ for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())
    assert all(module.training for module in model.modules())


def test_failure_inside_leaves_the_model_as_it_was(
    tiny_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model("llama")
    decoder = find_decoder(model)
    mine = decoder.layers[2].forward
    decoder.layers[2].__dict__["forward"] = mine

    def interrupted(*_args: Any, **_kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(type(decoder.layers[0].mlp), "forward", interrupted)
    with pytest.raises(KeyboardInterrupt):
        LayerStream(decoder, IDS, 1)
    assert "forward" not in decoder.layers[1].__dict__
    assert decoder.layers[2].__dict__["forward"] is mine


def test_dropout_is_off(tiny_model: Any) -> None:
    model = tiny_model("gpt2", resid_pdrop=0.5, embd_pdrop=0.5)
    expected = capture(model, IDS, [2])[2].inputs
    torch.testing.assert_close(capture(model.train(), IDS, [2])[2].inputs, expected)


def test_batch_size_does_not_matter(any_model: Any) -> None:
    small = capture(any_model, IDS, [3], batch_tokens=1)[3]
    large = capture(any_model, IDS, [3], batch_tokens=1000)[3]
    torch.testing.assert_close(small.inputs, large.inputs, **TOLERANCE)


def test_layers_in_order_only(tiny_model: Any) -> None:
    stream = LayerStream(find_decoder(tiny_model("llama")), IDS, 1)
    stream.advance(2)
    assert stream.layer == 3
    with pytest.raises(ArgumentError, match="layer: got 2, expected 3 or later"):
        stream.run(2)


@pytest.mark.parametrize(
    ("ids", "options", "message"),
    [
        ([], {}, "sequences: got none"),
        ([[1], []], {}, r"sequences\[1\]: got no tokens"),
        ([[1] * 65], {}, r"sequences\[0\]: got 65 tokens, expected at most 64"),
        ([[3, 97]], {}, r"token ids from 3 to 97, expected \[0, 96\]"),
        ([[-1]], {}, r"token ids from -1"),
        ([[1, 2]], {"wanted": [[2]]}, r"wanted\[0\]: got position 2"),
        ([[1, 2]], {"streamed": [[0], [0]]}, "streamed: got 2 entries"),
    ],
)
def test_arguments(tiny_model: Any, ids: Any, options: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        LayerStream(find_decoder(tiny_model("llama")), ids, 1, **options)


def test_update_of_another_shape(tiny_model: Any) -> None:
    stream = LayerStream(find_decoder(tiny_model("llama")), IDS, 1)
    with pytest.raises(ArgumentError, match=r"shape \(24, 24\), expected \(24, 40\)"):
        stream.advance(1, torch.zeros(24, 24))


def test_unsupported_layer_is_refused_only_when_used(tiny_model: Any) -> None:
    model = tiny_model("llama")
    layers = model.model.layers
    layers[3].mlp.down_proj.weight = layers[0].mlp.down_proj.weight
    stream = LayerStream(find_decoder(model), IDS, 1)
    stream.run(2)
    with pytest.raises(ModelError, match="layer 3 cannot be changed"):
        stream.run(3)


def test_capture_strings(tiny_model: Any) -> None:
    model = tiny_model("llama")

    def tokenizer(text: str) -> dict[str, list[int]]:
        return {"input_ids": [ord(letter) - 90 for letter in text]}

    rows = capture(
        model, ["abc", "de"], [-1, 0], positions=[[0], [1]], tokenizer=tokenizer
    )
    assert list(rows) == [0, 3]
    inputs, outputs = reference(model, [[7, 8, 9], [10, 11]], 3)
    expected = torch.stack([inputs[0][0], inputs[1][1]])
    torch.testing.assert_close(rows[3].inputs, expected, **TOLERANCE)
    expected = torch.stack([outputs[0][0], outputs[1][1]])
    torch.testing.assert_close(rows[3].outputs, expected, **TOLERANCE)
    with pytest.raises(ArgumentError, match="tokenizer: got None"):
        capture(model, ["abc"], [0])


def test_bfloat16(tiny_model: Any) -> None:
    model = tiny_model("llama").bfloat16()
    rows = capture(model, IDS, [1, 2])[2]
    assert rows.inputs.dtype == torch.bfloat16
    exact = capture(model.float(), IDS, [1, 2])[2].inputs
    assert (rows.inputs.float() - exact).norm() < 0.05 * exact.norm()


def test_final_states_come_in_the_order_of_the_sequences(tiny_model):
    model = tiny_model("llama")
    ids = [[(7 * i + j) % 90 + 1 for j in range(i % 9 + 2)] for i in range(40)]
    entered = []
    stream = LayerStream(
        find_decoder(model), ids, 2, wanted=[[-1, 0]] * len(ids), batch_tokens=60,
        entered=entered.append,
    )  # fmt: skip
    assert sum(entered) == len(ids)
    assert len(entered) > 3
    with torch.no_grad():
        expected = [model.model(torch.tensor([o])).last_hidden_state[0] for o in ids]
        found = model.model.norm(stream.final())
    expected = torch.cat([rows[[-1, 0]] for rows in expected])
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    assert stream.layer == 2
