# SPDX-License-Identifier: Apache-2.0
"""LoRA adapters hold the change of the intervention, and peft finds it there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from hypothesis import given, settings
from hypothesis import strategies as st

from cintervene.errors import ArgumentError, InterventionError
from cintervene.export import AdapterIntervention, lora, read_lora
from cintervene.export.adapters import factors
from cintervene.intervention.intervention import Intervention
from cintervene.models import find_targets
from cintervene.solvers.update import LowRankUpdate

IDS = torch.arange(1, 13).reshape(2, 6)


def make(
    model: Any, ranks: Any = (2, 5), size: float = 0.3, matrix: Any = "down_proj"
) -> Intervention:
    """Changes of two layers, of different ranks."""
    source = np.random.default_rng(5)
    pairs = []
    targets = find_targets(model, (1, 3), matrix=matrix)
    for target, rank in zip(targets, ranks, strict=True):
        left = source.normal(size=(target.d_out, rank)) * size
        right = source.normal(size=(rank, target.d_in)) * size
        pairs.append((target, LowRankUpdate(left, right)))
    return Intervention.of(model, pairs)


def logits(model: Any) -> Any:
    with torch.no_grad():
        return model(input_ids=IDS).logits.double()


def changed_logits(model: Any, change: Intervention) -> Any:
    with change.applied(model):
        return logits(model)


def distance(a: Any, b: Any) -> float:
    return float(torch.linalg.norm(a - b) / torch.linalg.norm(b))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_peft_gives_the_logits_of_apply(
    any_model: Any, dtype: Any, matrix: Any, tmp_path: Path
) -> None:
    peft = pytest.importorskip("peft")
    model = any_model.to(dtype)
    change = make(model, matrix=matrix)
    meant, before = changed_logits(model, change), logits(model)
    made = lora(change, tmp_path / "adapter", base="where/it/is")
    assert made.rank == 5
    assert max(made.errors.values()) < 1e-6
    loaded = peft.PeftModel.from_pretrained(model, tmp_path / "adapter")
    rounding = 1e-5 if dtype == torch.float32 else 0.03
    assert distance(logits(loaded), meant) < rounding
    assert distance(before, meant) > 0.1
    merged = loaded.merge_and_unload()
    assert distance(logits(merged), meant) < rounding


def test_keys_are_those_of_peft(tiny_model: Any, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    safetensors = pytest.importorskip("safetensors.torch")
    model = tiny_model("llama")
    lora(make(model), tmp_path / "ours")
    ours = safetensors.load_file(tmp_path / "ours" / "adapter_model.safetensors")
    loaded = peft.PeftModel.from_pretrained(model, tmp_path / "ours")
    loaded.save_pretrained(tmp_path / "theirs")
    theirs = safetensors.load_file(tmp_path / "theirs" / "adapter_model.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    written, known = (
        json.loads((tmp_path / which / "adapter_config.json").read_text("utf-8"))
        for which in ("ours", "theirs")
    )
    for key, value in written.items():
        found = sorted(known[key]) if key == "target_modules" else known[key]
        assert found == value, key


def test_other_layers_are_left_alone(tiny_model: Any, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    model = tiny_model("llama", num_hidden_layers=12)
    change = make(model)
    lora(change, tmp_path / "adapter")
    loaded = peft.PeftModel.from_pretrained(model, tmp_path / "adapter")
    adapted = {n for n, _ in loaded.named_modules() if n.endswith("lora_A.default")}
    wanted = {f"base_model.model.{n[:-7]}.lora_A.default" for n in change.edits}
    assert adapted == wanted


@pytest.mark.parametrize(("dtype", "error"), [("bfloat16", 4e-3), ("float16", 5e-4)])
def test_narrow_factors(
    tiny_model: Any, tmp_path: Path, dtype: str, error: float
) -> None:
    change = make(tiny_model("llama"))
    wide = lora(change, tmp_path / "wide")
    narrow = lora(change, tmp_path / "narrow", dtype=dtype)
    for name, found in narrow.errors.items():
        assert wide.errors[name] < 1e-6 < found < error
    stored = read_lora(change, tmp_path / "narrow")
    for name, update in change.updates.items():
        off = stored[name].matrix() - update.matrix()
        size = np.linalg.norm(off) / np.linalg.norm(update.matrix())
        assert size == pytest.approx(narrow.errors[name], rel=1e-3)


def test_what_was_read_back_is_measured_as_it_is_used(
    any_model: Any, tmp_path: Path
) -> None:
    peft = pytest.importorskip("peft")
    model = any_model.bfloat16()
    change = make(model)
    before = logits(model)
    lora(change, tmp_path / "adapter")
    attached = AdapterIntervention(change, read_lora(change, tmp_path / "adapter"))
    meant = changed_logits(model, attached)
    assert torch.equal(logits(model), before)
    loaded = peft.PeftModel.from_pretrained(model, tmp_path / "adapter")
    assert distance(logits(loaded), meant) < 1e-3


def test_attaching_is_guarded(tiny_model: Any) -> None:
    model = tiny_model("llama")
    attached = AdapterIntervention(make(model))
    attached.apply(model)
    with pytest.raises(InterventionError, match="attached already"):
        attached.apply(model)
    attached.revert(model)
    with pytest.raises(InterventionError, match="not attached"):
        attached.revert(model)
    with pytest.raises(InterventionError, match="has no module"):
        attached.apply(tiny_model("gpt2"))


def test_refusals(tiny_model: Any, tmp_path: Path) -> None:
    model = tiny_model("llama")
    change = make(model)
    with pytest.raises(ArgumentError, match="dtype: got 'int8'"):
        lora(change, tmp_path / "a", dtype="int8")
    with pytest.raises(InterventionError, match=r"out of the range of torch\.float16"):
        lora(change.scale(1e12), tmp_path / "a", dtype="float16")
    with pytest.raises(InterventionError, match="all ranks are 0"):
        lora(make(model, (0, 0)), tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
    lora(change, tmp_path / "a")
    with pytest.raises(ArgumentError, match="is not empty"):
        lora(change, tmp_path / "a")
    with pytest.raises(InterventionError, match="is not the adapter of this"):
        read_lora(make(tiny_model("gpt2")), tmp_path / "a")


@settings(max_examples=40)
@given(
    rank=st.integers(1, 4),
    spare=st.integers(0, 3),
    exponent=st.integers(-30, 30),
    seed=st.integers(0, 99),
)
def test_factors_keep_the_change(
    rank: int, spare: int, exponent: int, seed: int
) -> None:
    source = np.random.default_rng(seed)
    left = source.normal(size=(5, rank)) * 2.0**exponent
    right = source.normal(size=(rank, 7))
    left[:, 0] *= seed % 3 > 0
    found = factors.pair(LowRankUpdate(left, right), rank + spare, torch.float32)
    assert found.a.shape == (rank + spare, 7)
    assert found.b.shape == (5, rank + spare)
    np.testing.assert_allclose(
        found.update.matrix(), left @ right, rtol=1e-5, atol=1e-5 * 2.0**exponent
    )
    sizes = found.b.norm(dim=0), found.a.norm(dim=1)
    used = sizes[0] > 0
    assert torch.all(sizes[0][used] / sizes[1][used] < 4)
    assert torch.all(sizes[1][used] / sizes[0][used] < 4)


def test_a_lower_rank(tiny_model: Any, tmp_path: Path) -> None:
    """Cut to the closest change: what is lost is the tail of the singular values."""
    change = make(tiny_model("llama"), ranks=(2, 5))
    made = lora(change, tmp_path / "adapter", max_rank=2)
    assert made.rank == 2
    stored = read_lora(change, tmp_path / "adapter")
    lost = []
    for name, update in change.updates.items():
        left, values, right = np.linalg.svd(update.matrix())
        closest = left[:, :2] * values[:2] @ right[:2]
        np.testing.assert_allclose(
            stored[name].matrix(), closest, rtol=1e-4, atol=1e-5 * values[0]
        )
        lost.append(np.linalg.norm(values[2:]) / np.linalg.norm(values))
        assert made.errors[name] == pytest.approx(lost[-1], rel=1e-4, abs=1e-6)
    # One change has no more than this rank, the other is cut.
    assert lost[0] < 1e-6
    assert lost[1] > 0.1
    assert lora(change, tmp_path / "same", max_rank=9).rank == 5
    with pytest.raises(ArgumentError, match="max_rank: got 0"):
        lora(change, tmp_path / "none", max_rank=0)
