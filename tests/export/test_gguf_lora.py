# SPDX-License-Identifier: Apache-2.0
"""GGUF adapters carry llama.cpp's names and the change of the intervention."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.gguf_files import NAMES, base_of, write_base

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
gguf = pytest.importorskip("gguf")

from cintervene import export
from cintervene.errors import ArgumentError, InterventionError, ModelError
from cintervene.intervention.intervention import Intervention
from cintervene.methods.common.gated_mlp_discovery import find_gated_mlp
from cintervene.models import find_decoder, find_targets
from cintervene.solvers.update import LowRankUpdate

ARCHITECTURES = {
    "llama": "llama", "mistral": "llama", "gemma2": "gemma2", "gemma3": "gemma3",
    "qwen2": "qwen2", "qwen3": "qwen3", "phi3": "phi3", "gpt2": "gpt2",
}  # fmt: skip


def make(model: Any, ranks: Any = (2, 5), matrix: Any = "down_proj") -> Intervention:
    source = np.random.default_rng(5)
    pairs = []
    targets = find_targets(model, (1, 3), matrix=matrix)
    for target, rank in zip(targets, ranks, strict=True):
        left = source.normal(size=(target.d_out, rank))
        update = LowRankUpdate(left, source.normal(size=(rank, target.d_in)))
        pairs.append((target, update))
    return Intervention.of(model, pairs)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_names_shapes_and_change(
    tiny_model: Any, tmp_path: Path, name: str, matrix: Any
) -> None:
    model = tiny_model(name)
    change = make(model, matrix=matrix)
    base = base_of(tmp_path / "base.gguf", model, ARCHITECTURES[name], matrix)
    made = export.gguf(change, tmp_path / "out", base)
    assert made.rank == 5
    assert max(made.errors.values()) < 1e-6
    reader = gguf.GGUFReader(made.path / "adapter.gguf")
    fields = {key: field.contents() for key, field in reader.fields.items()}
    assert fields["general.type"] == "adapter"
    assert fields["general.architecture"] == ARCHITECTURES[name]
    assert fields["adapter.type"] == "lora"
    assert fields["adapter.lora.alpha"] == 5.0
    stored = {tensor.name: np.array(tensor.data) for tensor in reader.tensors}
    assert len(stored) == 4
    for layer, update in zip((1, 3), change.updates.values(), strict=True):
        a, b = (
            stored[f"blk.{layer}.{NAMES[matrix]}.weight.lora_{part}"] for part in "ab"
        )
        assert a.shape == (5, update.shape[1])
        np.testing.assert_allclose(b @ a, update.matrix(), rtol=1e-4, atol=1e-5)
    assert change.digest in (made.path / "README.md").read_text("utf-8")


@pytest.mark.parametrize(
    "name", ["llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "phi3"]
)
def test_the_matrices_of_gates(tiny_model: Any, tmp_path: Path, name: str) -> None:
    model = tiny_model(name)
    source = np.random.default_rng(5)
    mlp = find_gated_mlp(find_decoder(model), 2)
    # One matrix for both is called by the name of the second.
    names = {mlp.gate.target.name: "ffn_gate", mlp.up.target.name: "ffn_up"}
    names[mlp.down.name] = "ffn_down"
    rows = (torch.from_numpy(source.normal(size=(3, 24))).float() for _ in range(3))
    change = Intervention.of(model, mlp.replaced([7, 1, 30], *rows))
    shapes = {
        f"blk.2.{own}.weight": change.edits[weight].shape
        for weight, own in names.items()
    }
    base = write_base(tmp_path / "base.gguf", ARCHITECTURES[name], shapes)
    made = export.gguf(change, tmp_path / "out", base)
    assert max(made.errors.values()) < 1e-6
    reader = gguf.GGUFReader(made.path / "adapter.gguf")
    stored = {tensor.name: np.array(tensor.data) for tensor in reader.tensors}
    assert len(stored) == (4 if name == "phi3" else 6)
    for weight, own in names.items():
        a, b = (stored[f"blk.2.{own}.weight.lora_{part}"] for part in "ab")
        meant = change.updates[weight].matrix()
        np.testing.assert_allclose(b @ a, meant, rtol=1e-4, atol=1e-5)


def test_half_precision(tiny_model: Any, tmp_path: Path) -> None:
    model = tiny_model("llama")
    base = base_of(tmp_path / "base.gguf", model, "llama")
    made = export.gguf(make(model), tmp_path / "out", base, dtype="float16")
    assert 1e-5 < max(made.errors.values()) < 1e-3
    reader = gguf.GGUFReader(made.path / "adapter.gguf")
    assert {tensor.tensor_type.name for tensor in reader.tensors} == {"F16"}


def test_a_lower_rank(tiny_model: Any, tmp_path: Path) -> None:
    """The file holds the closest change of the rank, and acts at scale 1."""
    model = tiny_model("llama")
    change = make(model)
    base = base_of(tmp_path / "base.gguf", model, "llama")
    made = export.gguf(change, tmp_path / "out", base, max_rank=3)
    assert made.rank == 3
    reader = gguf.GGUFReader(made.path / "adapter.gguf")
    assert reader.fields["adapter.lora.alpha"].contents() == 3.0
    stored = {tensor.name: np.array(tensor.data) for tensor in reader.tensors}
    for layer, (name, update) in zip((1, 3), change.updates.items(), strict=True):
        a, b = (stored[f"blk.{layer}.ffn_down.weight.lora_{part}"] for part in "ab")
        assert a.shape[0] == b.shape[1] == 3
        left, values, right = np.linalg.svd(update.matrix())
        closest = left[:, :3] * values[:3] @ right[:3]
        np.testing.assert_allclose(b @ a, closest, rtol=1e-4, atol=1e-5 * values[0])
        lost = np.linalg.norm(values[3:]) / np.linalg.norm(values)
        assert made.errors[name] == pytest.approx(lost, rel=1e-4, abs=1e-6)
    # One change has no more than this rank, the other is cut.
    assert min(made.errors.values()) < 1e-6
    assert max(made.errors.values()) > 0.1
    with pytest.raises(ArgumentError, match="max_rank: got 0"):
        export.gguf(change, tmp_path / "none", base, max_rank=0)


def test_refusals(tiny_model: Any, tmp_path: Path) -> None:
    model = tiny_model("llama")
    change, out = make(model), tmp_path / "out"
    base = base_of(tmp_path / "base.gguf", model, "llama")
    with pytest.raises(ArgumentError, match="expected float32 or float16"):
        export.gguf(change, out, base, dtype="bfloat16")
    name = "blk.1.ffn_down.weight"
    small = write_base(tmp_path / "small.gguf", "llama", {name: (8, 8)})
    with pytest.raises(InterventionError, match=r"is \(8, 8\), expected \(24, 40\)"):
        export.gguf(change, out, small)
    empty = write_base(tmp_path / "empty.gguf", "llama", {"blk.0.a": (2, 2)})
    with pytest.raises(InterventionError, match="holds no counterpart of model"):
        export.gguf(change, out, empty)
    strange = write_base(tmp_path / "strange.gguf", "strange", {name: (24, 40)})
    with pytest.raises(ModelError, match="does not know the architecture 'strange'"):
        export.gguf(change, out, strange)
    text = tmp_path / "text.gguf"
    text.write_text("no model", "utf-8")
    with pytest.raises(ModelError, match="is not a GGUF file"):
        export.gguf(change, out, text)
    assert not out.exists()
