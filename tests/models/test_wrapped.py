# SPDX-License-Identifier: Apache-2.0
"""Models that are compiled, or within wrappers: the same parts, names and effects."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from support.guarded import guard, padded, step
from support.interventions import random_intervention
from support.little_defences import little_defence
from support.saved_models import save_tiny_model
from support.tiny_models import make_tiny_model
from torch import nn

import cintervene as ci
from cintervene.activations.capture import capture
from cintervene.errors import InterventionError, ModelError
from cintervene.intervention.adapter import AdapterIntervention
from cintervene.models import find_targets
from cintervene.models.trace import hooked
from cintervene.models.wrapped import named_modules, submodule, unwrapped

IDS = torch.arange(1, 9).view(1, 8)
close = torch.testing.assert_close


def compiled(model: Any) -> Any:
    return torch.compile(model, backend="eager")


def compiled_in_place(model: Any) -> Any:
    model.compile(backend="eager")
    return model


def with_compiled_layers(model: Any) -> Any:
    for layer in model.model.layers:
        layer.compile(backend="eager")
    return model


def with_wrapped_layers(model: Any) -> Any:
    for index, layer in enumerate(model.model.layers):
        model.model.layers[index] = compiled(layer)
    return model


def with_wrapped_blocks(model: Any) -> Any:
    for layer in model.model.layers:
        layer.mlp = compiled(layer.mlp)
    return model


COMPILED = [
    compiled, compiled_in_place, with_compiled_layers, with_wrapped_layers,
    with_wrapped_blocks,
]  # fmt: skip


def logits(model: Any) -> Any:
    with torch.no_grad():
        return model(IDS).logits


def make() -> Any:
    return make_tiny_model("llama", max_position_embeddings=1024)


@pytest.fixture(params=COMPILED)
def warm(request: pytest.FixtureRequest) -> Any:
    """A model whose compiled code has run before any hook was there."""
    model = request.param(make())
    for _ in range(2):
        logits(model)
    return model


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_names_are_those_of_the_model(warm: Any, matrix: Any) -> None:
    plain = make()
    expected = [t.name for t in find_targets(plain, matrix=matrix)]
    found = find_targets(warm, matrix=matrix)
    assert [target.name for target in found] == expected
    parameters = dict(unwrapped(plain).named_parameters())
    for target in found:
        assert torch.equal(target.weight, parameters[target.name])
    assert {name for name, _ in named_modules(warm)} == {
        name for name, _ in plain.named_modules()
    }
    for name, module in plain.named_modules():
        assert type(submodule(warm, name)) is type(module)


def test_rows_are_those_of_the_model(warm: Any) -> None:
    expected = capture(make(), [[5, 9, 3]], [1])[1]
    rows = capture(warm, [[5, 9, 3]], [1])[1]
    close(rows.inputs, expected.inputs)
    close(rows.outputs, expected.outputs)


def test_changes_of_weights_work(warm: Any) -> None:
    base, change = logits(warm), random_intervention(make())
    assert random_intervention(warm).digest == change.digest
    plain = make()
    with change.applied(plain), change.applied(warm):
        close(logits(warm), logits(plain))
        assert not torch.allclose(logits(warm), base)
    close(logits(warm), base)


def test_adapters_work_and_leave(warm: Any) -> None:
    base, plain = logits(warm), make()
    change = random_intervention(plain)
    with AdapterIntervention(change).applied(plain):
        expected = logits(plain)
    with AdapterIntervention(change).applied(warm):
        for _ in range(3):
            close(logits(warm), expected)
    assert not torch.allclose(expected, base)
    close(logits(warm), base)


def test_a_guard_sees_every_token(warm: Any) -> None:
    plain = make()
    undefended = step(plain)
    with guard(plain) as usual:
        expected = step(plain)
    with guard(warm) as own:
        found = step(warm)
    assert own.activity.positions == usual.activity.positions
    assert torch.equal(found.sequences, expected.sequences)
    assert not torch.equal(found.sequences, undefended.sequences)


def test_a_guard_sees_what_transformers_compiles() -> None:
    """With a static cache it compiles by itself on a GPU; here it is told to."""
    compilation = transformers.CompileConfig(backend="eager")
    compilation._compile_all_devices = True
    options = {"cache_implementation": "static", "compile_config": compilation}
    model, plain = make(), make()
    for _ in range(2):
        step(model, **options)
    with guard(plain) as usual:
        expected = step(plain)
    with guard(model) as own:
        found = step(model, **options)
    assert own.activity.positions == usual.activity.positions
    assert torch.equal(found.sequences, expected.sequences)


def test_a_hook_that_did_not_run_is_told() -> None:
    refused = pytest.raises(ModelError, match="a hook on a ReLU did not run")
    with refused, hooked(nn.ReLU(), lambda *_: None):
        pass


def around_its_modules(model: Any) -> None:
    """Let the last MLP run as a fused kernel does, without calling its parts."""
    mlp = model.model.layers[3].mlp

    def forward(x: Any) -> Any:
        opened = mlp.act_fn(x @ mlp.gate_proj.weight.T) * (x @ mlp.up_proj.weight.T)
        return opened @ mlp.down_proj.weight.T

    mlp.forward = forward


def test_a_guard_that_is_left_out_is_told() -> None:
    model = make()
    own = guard(model)
    around_its_modules(model)
    with (
        pytest.raises(InterventionError, match=r"layers\.3.*hook did not run.*guarded"),
        own,
    ):
        step(model)


def test_a_guarded_generate_that_calls_no_model_is_told() -> None:
    model = make()
    own = guard(model)
    model.generate = lambda **given: given["input_ids"]
    with pytest.raises(InterventionError, match="never called the model's forward"):
        own.generate(**padded())


def test_an_adapter_that_is_left_out_is_told() -> None:
    model = make()
    change = AdapterIntervention(random_intervention(model))
    around_its_modules(model)
    with (
        pytest.raises(InterventionError, match=r"layers\.3.*was not added"),
        change.applied(model),
    ):
        logits(model)
    close(logits(model), logits(make()))


@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize(
    "wrap",
    [
        nn.parallel.DistributedDataParallel,
        nn.DataParallel,
        lambda model: compiled(nn.parallel.DistributedDataParallel(model)),
    ],
)
def test_replicas_are_taken_as_their_model(
    tmp_path: Path, wrap: Callable[[Any], Any]
) -> None:
    place = save_tiny_model(tmp_path / "tiny", num_hidden_layers=4)
    model, tokenizer = ci.models.load(place)
    expected = ci.defend(model, tokenizer, **little_defence("pcr, requests"))
    wrapped = wrap(model)
    assert unwrapped(wrapped) is model
    change = ci.defend(wrapped, tokenizer, **little_defence("pcr, requests"))
    assert change.digest == expected.digest
    base = logits(model)
    with change.applied(wrapped):
        after = logits(model)
        assert not torch.equal(after, base)
        close(logits(wrapped), after)
    assert torch.equal(logits(model), base)
