# SPDX-License-Identifier: Apache-2.0
"""Comparisons find every difference, its size and rank, and what made it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import cintervene as ci
from cintervene.errors import ArgumentError, ModelError
from cintervene.export.comparison import residue
from cintervene.intervention.intervention import Intervention
from cintervene.models import find_targets, loading
from cintervene.solvers.update import LowRankUpdate

LAYER = "model.layers.{}.mlp.down_proj.weight"


def make(model: Any, seed: int = 5, layers: Any = (1, 3), rank: int = 2) -> Any:
    source = np.random.default_rng(seed)
    pairs = []
    for target in find_targets(model, layers):
        left = source.normal(size=(target.d_out, rank)) * 0.3
        update = LowRankUpdate(left, source.normal(size=(rank, target.d_in)))
        pairs.append((target, update))
    return Intervention.of(model, pairs)


def save(model: Any, directory: Path, **options: Any) -> Path:
    with loading.quiet():
        model.save_pretrained(directory, **options)
    return directory


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_saved_and_loaded_models(
    tiny_model: Any, tmp_path: Path, name: str, dtype: Any
) -> None:
    base = tiny_model(name).to(dtype)
    changed = copy.deepcopy(base)
    change = make(base)
    change.apply(changed)
    directories = save(base, tmp_path / "a"), save(changed, tmp_path / "b")
    for before in (base, directories[0]):
        for after in (changed, directories[1]):
            assert ci.compare(before, before).same
            found = ci.compare(before, after, change)
            assert [one.name for one in found.differences] == list(change.edits)
            assert found.explained
            for one in found.differences:
                assert (one.kind, one.exact, one.explained_by) == ("values", True, (0,))
                assert one.rank == 2
                size = change.edits[one.name].relative_norm
                assert one.relative_norm == pytest.approx(size, rel=1e-2)
            assert not ci.compare(before, after).explained


def test_shards_against_one_file(tiny_model: Any, tmp_path: Path) -> None:
    model = tiny_model("llama")
    whole = save(model, tmp_path / "whole")
    shards = save(model, tmp_path / "shards", max_shard_size="12kB")
    found = ci.compare(whole, shards)
    assert found.same
    assert str(found) == f"all {found.tensors} tensors are the same, to the bit"


def test_which_of_several_interventions(tiny_model: Any) -> None:
    base = tiny_model("llama").bfloat16()
    first, third = make(base, 1), make(base, 3, layers=[3])
    changed = copy.deepcopy(base)
    first.apply(changed)
    second = make(changed, 2, layers=[1])
    second.apply(changed)
    found = ci.compare(base, changed, [third, first, second])
    by_name = {one.name: one for one in found.differences}
    assert by_name[LAYER.format(1)].explained_by == (1, 2)
    assert by_name[LAYER.format(1)].exact
    assert by_name[LAYER.format(1)].rank == 4
    assert by_name[LAYER.format(3)].explained_by == (1,)
    assert "intervention 2, 3, to the bit" in str(found)
    without = ci.compare(base, changed, [first, third])
    assert without.differences[0].explained_by == ()
    assert without.differences[1].explained_by == (0,)
    assert not without.explained


def test_explained_within_rounding(tiny_model: Any, tmp_path: Path) -> None:
    base = tiny_model("llama")
    change = make(base)
    wide = copy.deepcopy(base)
    change.apply(wide)
    stored = {k: v.bfloat16() for k, v in load_file(
        save(wide, tmp_path / "wide") / "model.safetensors").items()}  # fmt: skip
    narrow = save(base.bfloat16(), tmp_path / "narrow")
    save_file(stored, tmp_path / "wide" / "model.safetensors")
    found = ci.compare(narrow, tmp_path / "wide", change)
    assert found.explained
    assert not any(one.exact for one in found.differences)
    assert all(1e-4 < one.residual < 0.02 for one in found.differences)
    assert "within rounding" in str(found)
    other = ci.compare(narrow, tmp_path / "wide", change.scale(0.9))
    assert not other.explained


def test_training_is_not_explained(tiny_model: Any) -> None:
    base = tiny_model("llama")
    tuned = copy.deepcopy(base)
    with torch.no_grad():
        source = torch.Generator().manual_seed(1)
        for parameter in tuned.parameters():
            noise = torch.randn(parameter.shape, generator=source)
            parameter += 0.01 * noise
    found = ci.compare(base, tuned, make(base))
    assert len(found.differences) == found.tensors
    assert not any(one.explained_by for one in found.differences)
    assert all(one.rank is None for one in found.differences)


def test_other_shapes_types_and_names(tiny_model: Any, tmp_path: Path) -> None:
    source = save(tiny_model("llama"), tmp_path / "base")
    stored = load_file(source / "model.safetensors")
    other = dict(stored)
    first, second, third = list(stored)[:3]
    other[first] = stored[first].bfloat16()
    other[second] = stored[second][:-1].contiguous()
    del other[third]
    other["extra.weight"] = torch.ones(2)
    (tmp_path / "other").mkdir()
    renamed = {f"language_model.{k}": v for k, v in other.items()}
    for tensors in (other, renamed):
        save_file(tensors, tmp_path / "other" / "model.safetensors")
        found = ci.compare(source, tmp_path / "other")
        kinds = {one.name.split(".", 1)[1]: one.kind for one in found.differences}
        assert len(kinds) == 4
        assert {one.kind for one in found.differences} == {
            "type", "shape", "only before", "only after",
        }  # fmt: skip
    kind = next(one for one in found.differences if one.kind == "type")
    assert kind.relative_norm == pytest.approx(2e-3, rel=0.5)


def test_tied_weights_are_one_tensor(tiny_model: Any, tmp_path: Path) -> None:
    model = tiny_model("llama")
    assert model.lm_head.weight is model.model.embed_tokens.weight
    directory = save(model, tmp_path / "base")
    assert ci.compare(directory, model).same
    assert ci.compare(model, directory).same
    with torch.no_grad():
        model.lm_head.weight[0, 0] += 1
    found = ci.compare(directory, model).differences
    assert [one.name for one in found] == ["model.embed_tokens.weight"]
    assert found[0].rank == 1


def test_refusals(tiny_model: Any, tmp_path: Path) -> None:
    model = tiny_model("llama")
    with pytest.raises(ArgumentError, match="after: got int, expected a directory"):
        ci.compare(model, 3)
    with pytest.raises(ModelError, match="holds neither"):
        ci.compare(tmp_path, model)
    with pytest.raises(ModelError, match="is on the meta device"):
        ci.compare(model, model.to("meta"))


@settings(max_examples=40)
@given(
    shape=st.tuples(st.integers(8, 40), st.integers(8, 40)),
    rank=st.integers(0, 3),
    exponent=st.integers(-4, 4),
    seed=st.integers(0, 99),
)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_rank_is_that_of_the_change_and_not_of_its_rounding(
    dtype: Any, shape: tuple[int, int], rank: int, exponent: int, seed: int
) -> None:
    source = np.random.default_rng(seed)
    # Rows of very different sizes round very differently.
    weight = source.normal(size=shape) * 2.0 ** source.integers(-6, 7, (shape[0], 1))
    before = torch.from_numpy(weight * 2.0**exponent).to(dtype)
    left = np.linalg.qr(source.normal(size=(shape[0], 3)))[0]
    right = np.linalg.qr(source.normal(size=(shape[1], 3)))[0].T
    size = 16 * np.abs(weight).max() * 2.0**exponent
    change = size * left[:, :rank] @ right[:rank]
    after = (before.double() + torch.from_numpy(change)).to(dtype)
    found = residue.Residue(before, after)
    expected = (after.double() - before.double()).numpy()
    np.testing.assert_allclose(found.norm, np.linalg.norm(expected))
    assert found.rank() == rank


def test_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    source = torch.Generator().manual_seed(3)
    for shape in ((30, 50), (50, 30)):
        before = torch.randn(shape, generator=source)
        after = before + torch.randn(shape[0], 2, generator=source) @ torch.randn(
            2, shape[1], generator=source
        )
        found = []
        for chunk in (1 << 22, 200, 1):
            monkeypatch.setattr(residue, "CHUNK", chunk)
            one = residue.Residue(before, after)
            found.append((one.norm, one.relative_norm, one.rounding, one.rank()))
        assert found[0][3] == 2
        for other in found[1:]:
            np.testing.assert_allclose(found[0], other)
