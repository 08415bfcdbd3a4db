# SPDX-License-Identifier: Apache-2.0
"""Gated MLPs however they are laid out: one matrix or two, biases, limits, norms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from torch import Tensor, nn

from cintervene import export
from cintervene.errors import ModelError
from cintervene.intervention.intervention import Intervention
from cintervene.methods.common.gated_mlp_discovery import find_gated_mlp
from cintervene.methods.gate.gates import EVEN, Tokens, fit_gates
from cintervene.models import find_decoder

# Rows of gate and up projection in one matrix of 2 n rows.
LAYOUTS: dict[str, Callable[[int], tuple[slice, slice]]] = {
    "gate first": lambda n: (slice(0, n), slice(n, 2 * n)),
    "up first": lambda n: (slice(n, 2 * n), slice(0, n)),
    "gate even": lambda n: (slice(0, None, 2), slice(1, None, 2)),
    "up even": lambda n: (slice(1, None, 2), slice(0, None, 2)),
}


class Fused(nn.Module):
    """The MLP of a Llama with one matrix for gate and up projection."""

    def __init__(self, mlp: Any, layout: str) -> None:
        super().__init__()
        width, inner = mlp.gate_proj.in_features, mlp.gate_proj.out_features
        self.rows = LAYOUTS[layout](inner)
        self.gate_up_proj = nn.Linear(
            width, 2 * inner, bias=mlp.up_proj.bias is not None
        )
        self.down_proj = mlp.down_proj
        with torch.no_grad():
            for part, rows in zip((mlp.gate_proj, mlp.up_proj), self.rows, strict=True):
                self.gate_up_proj.weight[rows] = part.weight
                if part.bias is not None:
                    self.gate_up_proj.bias[rows] = part.bias

    def forward(self, x: Tensor) -> Tensor:
        both = self.gate_up_proj(x)
        gate, up = (both[..., rows] for rows in self.rows)
        return self.down_proj(nn.functional.silu(gate) * up)


def rearranged(model: Any, part: Callable[[Any], nn.Module]) -> Any:
    """The model with another module for each MLP."""
    for layer in model.model.layers:
        layer.mlp = part(layer.mlp)
    return model


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_function_in_one_matrix_gets_the_same_change(
    tiny_model: Any, layout: str, bias: bool
) -> None:
    plain = find_gated_mlp(find_decoder(tiny_model("llama", mlp_bias=bias)), 2)
    model = rearranged(
        tiny_model("llama", mlp_bias=bias), lambda mlp: Fused(mlp, layout)
    )
    fused = find_gated_mlp(find_decoder(model), 2)
    rng = np.random.default_rng(3)
    inputs, *new = (
        torch.from_numpy(rng.standard_normal((count, 24))).float()
        for count in (9, 2, 2, 2)
    )
    places = plain.idlest(inputs, 2)
    assert fused.idlest(inputs, 2) == places
    for mine, other in zip(
        plain.neurons(places).parts, fused.neurons(places).parts, strict=True
    ):
        assert torch.equal(mine, other)
    gate, up, down = (update for _, update in plain.replaced(places, *new))
    both, column = (update for _, update in fused.replaced(places, *new))
    gate_rows, up_rows = LAYOUTS[layout](plain.down.d_in)
    np.testing.assert_array_equal(both.matrix()[gate_rows], gate.matrix())
    np.testing.assert_array_equal(both.matrix()[up_rows], up.matrix())
    np.testing.assert_array_equal(column.matrix(), down.matrix())
    change = Intervention.of(model, fused.replaced(places, *new))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with change.applied(model):
        assert set(change.edits) == {
            "model.layers.2.mlp.gate_up_proj.weight",
            "model.layers.2.mlp.down_proj.weight",
        }
    after = model.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_long_columns_leave_something_of_the_others_to_quantisers(
    tiny_model: Any,
) -> None:
    """No column is longer than the matrix's own; what the block returns is the same."""
    model = tiny_model("llama")
    mlp = find_gated_mlp(find_decoder(model), 2)
    rng = np.random.default_rng(5)
    inputs, gate, up, down = (
        torch.from_numpy(rng.standard_normal((count, 24))).float()
        for count in (9, 3, 3, 3)
    )
    down *= torch.tensor([[300.0], [3.0], [1e-3]])
    places, block = [1, 6, 20], mlp.block.module
    old, own = mlp.neurons(places), model.model.layers[2].mlp.down_proj.weight.clone()
    new = replace(old, gate=gate, up=up)
    with torch.no_grad():
        removed = mlp.activations(inputs, old) @ mlp.columns(places)
        expected = block(inputs) - removed + mlp.activations(inputs, new) @ down
        change = Intervention.of(model, mlp.replaced(places, gate, up, down))
        with change.applied(model):
            torch.testing.assert_close(block(inputs), expected, rtol=1e-4, atol=1e-4)
            columns = mlp.columns(places).abs().amax(dim=1)
            assert (mlp.neurons(places).up / up).log2().frac().abs().max() < 1e-4
    usual = own.abs().amax(dim=0).median()
    assert (columns <= usual).all()
    assert (columns[:2] > usual / 2).all()
    torch.testing.assert_close(columns[2], down[2].abs().max())


def test_biases_move_neither_thresholds_nor_sizes(tiny_model: Any) -> None:
    """What neurons make of inputs is what they would make of them without biases."""
    rng = np.random.default_rng(8)

    def tokens(shift: float) -> Tokens:
        inputs = rng.standard_normal((120, 24)).astype(np.float32)
        inputs[:, 0] = 8.0
        roles = np.repeat([0, 1, 2], 40)
        inputs[40:, 1] += shift
        return Tokens(inputs, roles)

    harmful, benign = tokens(6.0), tokens(-6.0)
    opened = []
    for size in (0.0, 3.0):
        model = tiny_model("llama", mlp_bias=True)
        with torch.no_grad():
            for part in ("gate_proj", "up_proj"):
                module = getattr(model.model.layers[2].mlp, part)
                module.bias.copy_(size * torch.linspace(-1, 1, len(module.bias)))
        mlp = find_gated_mlp(find_decoder(model), 2)
        gates = fit_gates(mlp, harmful, benign, [3, 30], 0.01, 3.0)
        neurons = gates.neurons(EVEN)
        assert bool(neurons.gate_bias.abs().max() > 1.0) == (size > 0)
        opened.append(
            [
                mlp.activations(torch.from_numpy(x.at(1)), neurons)
                for x in (harmful, benign)
            ]
        )
    for plain, biased in zip(*opened, strict=True):
        torch.testing.assert_close(plain, biased, rtol=0.1, atol=0.05)
    assert opened[1][0][:, 0].mean() == pytest.approx(1.0, abs=0.01)
    assert opened[1][1].abs().max() < 0.05


class Changed(nn.Module):
    """An MLP that is nearly a gated one."""

    def __init__(self, mlp: Any, kind: str) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = mlp.gate_proj, mlp.up_proj
        self.down_proj, self.kind = mlp.down_proj, kind
        self.inner = nn.RMSNorm(mlp.gate_proj.out_features)
        self.outer = nn.RMSNorm(mlp.gate_proj.in_features)

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "norm before":
            x = self.outer(x)
        gate, up = self.gate_proj(x), self.up_proj(x)
        if self.kind == "limited":
            gate, up = gate.clamp(max=20.0), up.clamp(-20.0, 20.0)
        if self.kind == "scaled":
            gate = 0.5 * gate
        act = {"tanh": torch.tanh, "squared": lambda g: g.relu() ** 2}.get(
            self.kind, nn.functional.silu
        )
        inner = act(gate) * up
        if self.kind == "norm within":
            inner = self.inner(inner)
        y: Tensor = self.down_proj(inner)
        return 2.0 * y if self.kind == "scaled output" else y


@pytest.mark.parametrize(
    ("kind", "match"),
    [
        ("limited", "does not multiply .* where these are large, but limits them"),
        ("norm before", "hands its input to its projections"),
        ("scaled output", "returns what the last one does"),
        ("norm within", "expected a gated MLP"),
        ("scaled", "expected a gated MLP"),
        ("tanh", "expected a gated MLP"),
        ("squared", "expected a gated MLP"),
    ],
)
def test_what_is_nearly_gated_is_refused_with_the_reason(
    tiny_model: Any, kind: str, match: str
) -> None:
    model = rearranged(tiny_model("llama"), lambda mlp: Changed(mlp, kind))
    with pytest.raises(ModelError, match=rf"model.layers.1.mlp: .*{match}.*use method"):
        find_gated_mlp(find_decoder(model), 1)


def test_the_probe_leaves_no_hooks_and_no_mode_behind(tiny_model: Any) -> None:
    model = tiny_model("phi3").train()
    find_gated_mlp(find_decoder(model), 1)
    assert all(part.training for part in model.modules())
    assert not any(part._forward_hooks for part in model.modules())


def test_detectors_do_not_depend_on_the_unit_of_inputs(tiny_model: Any) -> None:
    """Models without a norm before their MLPs read inputs of any size."""
    rng = np.random.default_rng(2)
    inputs = rng.standard_normal((90, 24)).astype(np.float32)
    inputs[:, 0] = 5.0
    inputs[:30, 1] += 4.0
    mlp = find_gated_mlp(find_decoder(tiny_model("llama")), 1)
    opened = []
    for unit in (2.0**-10, 1.0, 2.0**12):
        harmful = Tokens(inputs[:30] * unit, np.repeat([1, 2], 15))
        benign = Tokens(inputs[30:] * unit, np.repeat([0, 1, 2], 20))
        gates = fit_gates(mlp, harmful, benign, [4, 9], 0.01, 3.0)
        every = torch.from_numpy(inputs * unit)
        opened.append(mlp.activations(every, gates.neurons(EVEN)))
    torch.testing.assert_close(opened[0], opened[1], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(opened[2], opened[1], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["phi3", "gemma2"])
def test_adapters_and_checkpoints_hold_the_change(
    tiny_model: Any, tmp_path: Path, name: str
) -> None:
    peft = pytest.importorskip("peft")
    model = tiny_model(name)
    model.save_pretrained(tmp_path / "base")
    mlp = find_gated_mlp(find_decoder(model), 1)
    rng = np.random.default_rng(4)
    new = (torch.from_numpy(rng.standard_normal((3, 24))).float() for _ in range(3))
    change = Intervention.of(model, mlp.replaced([5, 17, 30], *new))
    change.save(tmp_path / "gate.safetensors")
    change = Intervention.load(tmp_path / "gate.safetensors")
    ids = torch.arange(1, 13).reshape(2, 6)
    export.checkpoint(change, tmp_path / "base", tmp_path / "changed")
    changed = type(model).from_pretrained(tmp_path / "changed").eval()
    export.lora(change, tmp_path / "adapter")
    with torch.no_grad():
        before = model(input_ids=ids).logits
        with change.applied(model):
            meant = model(input_ids=ids).logits
        assert torch.equal(model(input_ids=ids).logits, before)
        assert torch.equal(changed(input_ids=ids).logits, meant)
        change.revert(changed)
        assert torch.equal(changed(input_ids=ids).logits, before)
        adapted = peft.PeftModel.from_pretrained(model, tmp_path / "adapter")
        found = adapted(input_ids=ids).logits
    assert (before - meant).norm() > 0.01 * meant.norm()
    assert (found - meant).norm() < 1e-3 * (before - meant).norm()
