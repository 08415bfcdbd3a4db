# SPDX-License-Identifier: Apache-2.0
"""Models loaded in another type than that of their files: changed, and taken back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file
from support.directories import bits, contents, random_change, read, save

from cintervene.errors import InterventionError, ModelError
from cintervene.export import checkpoint, compare, gguf, lora
from cintervene.export.checkpoint.write import apply_to_directory, revert_directory
from cintervene.intervention.intervention import Intervention
from cintervene.models import find_decoder, find_targets
from cintervene.solvers.update import LowRankUpdate

DTYPES = [torch.bfloat16, torch.float16, torch.float32]
NAME = "model.layers.3.mlp.down_proj.weight"


@pytest.fixture(params=DTYPES, ids=str)
def base(request: Any, tmp_path: Path, tiny_model: Any) -> Path:
    """A model stored in one of the types, with tensors of another one among them."""
    model = tiny_model("llama").to(request.param)
    directory = save(model, tmp_path / "base")
    stored = load_file(directory / "model.safetensors")
    mixed = {k: v.float() if "norm" in k else v for k, v in stored.items()}
    save_file(mixed, directory / "model.safetensors", {"format": "pt"})
    return directory


@pytest.mark.parametrize("loaded", DTYPES, ids=str)
def test_directory_is_taken_back(base: Path, tmp_path: Path, loaded: Any) -> None:
    """Whatever type the change was made in, and stored and read again in between."""
    random_change(read(base, loaded)).save(tmp_path / "change")
    change = Intervention.load(tmp_path / "change")
    out, back = tmp_path / "out", tmp_path / "back"
    out.mkdir()
    back.mkdir()
    apply_to_directory(change, base, out)
    before = load_file(base / "model.safetensors")[NAME]
    after = load_file(out / "model.safetensors")[NAME]
    exact = before.double() + torch.tensor(change.updates[NAME].matrix()).double()
    assert after.dtype == before.dtype
    torch.testing.assert_close(after, exact.to(after.dtype))
    revert_directory(change, out, back)
    assert contents(back) == contents(base)
    assert compare(base, out, change).explained


@pytest.mark.parametrize("loaded", DTYPES, ids=str)
@pytest.mark.parametrize("again", [*DTYPES, torch.float64], ids=str)
def test_changed_model_is_taken_back(
    base: Path, tmp_path: Path, loaded: Any, again: Any
) -> None:
    """In memory, in any type, by a process that did not change it."""
    change = random_change(read(base, loaded))
    (tmp_path / "out").mkdir()
    apply_to_directory(change, base, tmp_path / "out")
    changed, expected = read(tmp_path / "out", again), read(base, again)
    assert bits(changed) != bits(expected)
    change.revert(changed)
    assert bits(changed) == bits(expected)


@pytest.mark.parametrize("loaded", DTYPES, ids=str)
@pytest.mark.parametrize("again", [*DTYPES, torch.float64], ids=str)
def test_apply_in_memory(base: Path, loaded: Any, again: Any, tmp_path: Path) -> None:
    """The same checkpoint is known in every type, and no other one."""
    change, model = random_change(read(base, loaded)), read(base, again)
    before = bits(model)
    weight = model.get_parameter(NAME).detach().clone().double()
    change.apply(model)
    exact = weight + torch.tensor(change.updates[NAME].matrix()).double()
    stored = load_file(base / "model.safetensors")[NAME].dtype
    coarsest = max((again, loaded, stored), key=lambda dtype: torch.finfo(dtype).eps)
    after = model.get_parameter(NAME).detach()
    torch.testing.assert_close(after.to(coarsest), exact.to(coarsest))
    with pytest.raises(InterventionError, match="carries this intervention already"):
        change.apply(model)
    change.revert(model)
    assert bits(model) == before
    with torch.no_grad():
        model.get_parameter(NAME)[0, 0] += 1
    with pytest.raises(InterventionError, match="is not the weight"):
        change.apply(model)


@pytest.mark.parametrize("made", DTYPES, ids=str)
def test_copy_in_a_wider_type(made: Any, tmp_path: Path, tiny_model: Any) -> None:
    """Files that hold the same numbers in a wider type are taken back as well."""
    narrow = tiny_model("llama").to(made)
    change = random_change(narrow)
    source = save(narrow.float(), tmp_path / "wide")
    before = contents(source)
    apply_to_directory(change, source, source)
    assert contents(source) != before
    wide = tiny_model("llama").to(made).float()
    change.apply(wide)
    assert bits(wide) == bits(read(source))
    revert_directory(change, source, source)
    assert contents(source) == before


def test_configuration_and_files_disagree(base: Path, tmp_path: Path) -> None:
    for named in ("bfloat16", "float16", "float32"):
        config = json.loads((base / "config.json").read_text("utf-8"))
        config |= {"dtype": named, "torch_dtype": named}
        (base / "config.json").write_text(json.dumps(config), "utf-8")
        before = contents(base)
        model = read(base)
        assert str(model.dtype) == f"torch.{named}"
        change = random_change(model)
        apply_to_directory(change, base, base)
        revert_directory(change, base, base)
        assert contents(base) == before


def test_sum_of_changes_in_two_types(base: Path) -> None:
    both = random_change(read(base, torch.float32)) + random_change(read(base))
    both.apply(read(base))
    both.apply(read(base, torch.float32))


def huge(model: Any, size: float = 3e38) -> Any:
    """A change beyond the range of every type but float64."""
    (target,) = find_targets(model, [3])
    left = np.full((target.d_out, 1), size**0.5)
    update = LowRankUpdate(left, np.full((1, target.d_in), size**0.5 * 1.5))
    return Intervention.of(model, [(target, update)])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_results_out_of_range(dtype: Any, tmp_path: Path, tiny_model: Any) -> None:
    """Nothing is written, neither in memory nor in files."""
    model = tiny_model("llama").to(dtype)
    source = save(model, tmp_path / "base")
    change = huge(model, 1e6 if dtype == torch.float16 else 3e38)
    before, files = bits(model), contents(source)
    (tmp_path / "out").mkdir()
    for attempt in (
        lambda: change.apply(model),
        lambda: apply_to_directory(change, source, source),
        lambda: apply_to_directory(change, source, tmp_path / "out"),
        lambda: checkpoint(change, source, tmp_path / "new"),
        lambda: lora(change, tmp_path / "new"),
    ):
        with pytest.raises(InterventionError, match=r"out of the range of (torch)?"):
            attempt()
    assert bits(model) == before
    assert contents(source) == files
    assert contents(tmp_path / "out") == {}
    assert not (tmp_path / "new").exists()
    change.scale(1e-7).apply(model)


def test_results_out_of_range_in_the_files_only(
    tmp_path: Path, tiny_model: Any
) -> None:
    model = tiny_model("llama").half()
    source = save(model, tmp_path / "base")
    change = huge(read(source, torch.float32), 1e6)
    before = contents(source)
    with pytest.raises(InterventionError, match=r"out of the range of float16"):
        apply_to_directory(change, source, source)
    assert contents(source) == before
    change.apply(read(source, torch.float32))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_factors_of_adapters_out_of_range(
    dtype: str, tmp_path: Path, tiny_model: Any
) -> None:
    change = huge(tiny_model("llama"), 1e6 if dtype == "float16" else 2.5e38)
    with pytest.raises(InterventionError, match=r"product of the factors is out of"):
        lora(change, tmp_path / "new", dtype=dtype)
    if dtype == "float16":
        with pytest.raises(InterventionError, match="out of the range of float16"):
            gguf(change, tmp_path / "new", tmp_path / "base.gguf", dtype=dtype)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_broken_weights_are_named(
    value: float, tmp_path: Path, tiny_model: Any
) -> None:
    model = tiny_model("llama")
    change, targets = random_change(model), find_targets(model, [3])
    with torch.no_grad():
        model.get_parameter(NAME)[0, 0] = value
    source = save(model, tmp_path / "base")
    with pytest.raises(ModelError, match=f"{NAME} .* holds Inf or NaN"):
        find_decoder(model)
    update = LowRankUpdate(np.ones((24, 1)), np.ones((1, 40)))
    for attempt in (
        lambda: change.apply(model),
        lambda: Intervention.of(model, [(targets[0], update)]),
        lambda: apply_to_directory(change, source, source),
    ):
        with pytest.raises(InterventionError, match=f"{NAME} holds Inf or NaN"):
            attempt()


def test_activations_out_of_range(tiny_model: Any) -> None:
    model = tiny_model("llama").half()
    with torch.no_grad():
        model.model.layers[2].mlp.up_proj.weight.fill_(6e4)
        model.model.layers[2].mlp.gate_proj.weight.fill_(6e4)
    with pytest.raises(
        ModelError, match=r"layers\.2\.mlp.* out of the range of float16"
    ):
        find_decoder(model)
