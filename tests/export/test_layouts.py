# SPDX-License-Identifier: Apache-2.0
"""Changes are written into the names and files that a model was saved in.

transformers calls many tensors otherwise in memory than in files: those of wrappers
round a text model, of experts that it stacks, of classes that were renamed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file
from support.architectures import NAMES, WRAPPERS, build, config_of
from support.directories import bits, changed_weights, contents, read, save
from support.saved_models import save_tiny_model

from cintervene.cli import main
from cintervene.errors import InterventionError, ModelError
from cintervene.export import checkpoint, compare, lora
from cintervene.export.checkpoint.intervention import CheckpointIntervention
from cintervene.export.checkpoint.shards import SINGLE
from cintervene.export.checkpoint.write import apply_to_directory, revert_directory
from cintervene.models import explain, find_targets, load

# What people download most, and each kind of difference between names.
USUAL = (
    "gemma3", "mistral3", "qwen2_5_vl", "qwen3_5", "qwen3_vl", "llava", "internvl",
    "idefics3", "smolvlm", "dots1", "glm4_moe", "qwen2_moe",
)  # fmt: skip
FIRST = "layers.0.mlp.down_proj.weight"


def some_targets(model: Any) -> list[Any]:
    """Projections of both kinds that can be changed, if any."""
    found: dict[str, Any] = {}
    for matrix in ("down_proj", "o_proj"):
        try:
            found |= {t.name: t for t in explain(model, matrix=matrix).targets}
        except ModelError:
            continue
    return list(found.values())


def check_round_trip(name: str, directory: Path) -> bool:
    """Change a saved model, compare it with one in memory, and take the change back."""
    source = save(build(name).bfloat16(), directory / "base")
    model = read(source)
    targets = some_targets(model)
    if not targets:
        return False
    change = changed_weights(model, targets)
    out = directory / "out"
    artefact = checkpoint(change, source, out)
    assert set(artefact.errors) == set(change.edits)
    assert load_file(out / SINGLE).keys() == load_file(source / SINGLE).keys()
    base = bits(model)
    CheckpointIntervention(change, out).apply(model)
    stored = bits(model)
    assert stored == bits(read(out))
    model = read(source)
    change.apply(model)
    assert bits(model) == stored
    assert {n for n in base if base[n] != stored[n]} == set(change.edits)
    change.revert(model)
    assert bits(model) == base
    (directory / "back").mkdir()
    revert_directory(change, out, directory / "back")
    assert contents(directory / "back") == contents(source)
    assert compare(source, out, change).explained
    assert compare(model, source).same or name not in WRAPPERS
    return True


@pytest.mark.parametrize("name", USUAL)
def test_round_trip(name: str, tmp_path: Path, counted: Callable[..., None]) -> None:
    assert check_round_trip(name, tmp_path)
    counted("saved models changed and taken back", 1)


def test_round_trip_of_every_architecture(
    tmp_path: Path, cases: Callable[[int, int], int], counted: Callable[..., None]
) -> None:
    names = [name for name in NAMES if name not in USUAL]
    for name in names[: cases(0, len(names))]:
        made = check_round_trip(name, tmp_path / name)
        counted("saved models changed and taken back", int(made))


@pytest.fixture
def gemma(tmp_path: Path) -> Path:
    """A saved Gemma 3 with its part for images, and a tokenizer."""
    directory = save_tiny_model(tmp_path / "gemma")
    for name in ("model.safetensors", "config.json", "generation_config.json"):
        (directory / name).unlink()
    return save(build("gemma3").bfloat16(), directory)


def test_wrappers_are_loaded_as_they_were_saved(gemma: Path, tmp_path: Path) -> None:
    model, tokenizer = load(gemma)
    assert type(model).__name__ == "Gemma3ForConditionalGeneration"
    assert tokenizer("a")["input_ids"]
    for name in WRAPPERS:
        config = config_of(name)
        mapping = transformers.AutoModelForImageTextToText._model_mapping
        config.architectures = [mapping[type(config)].__name__]
        from cintervene.models.pretrained import _kind

        assert _kind(config) in {"AutoModelForImageTextToText", "AutoModelForCausalLM"}
        made = getattr(transformers, _kind(config))._model_mapping[type(config)]
        assert made.__name__ == config.architectures[0]


def test_text_part_alone(gemma: Path, tmp_path: Path) -> None:
    """A class for text reads a wrapper's files, and the change goes into them."""
    config = transformers.AutoConfig.from_pretrained(gemma).text_config
    text = transformers.Gemma3ForCausalLM.from_pretrained(
        gemma, config=config, dtype="auto", key_mapping={r"^language_model\.": ""}
    )
    assert f"model.{FIRST}" in dict(text.named_parameters())
    change = changed_weights(text, find_targets(text))
    checkpoint(change, gemma, tmp_path / "out")
    change.apply(text)
    again = read(tmp_path / "out").get_parameter(f"model.language_model.{FIRST}")
    assert torch.equal(again, text.get_parameter(f"model.{FIRST}"))


def test_other_numbers_of_the_same_name_are_left_alone(tmp_path: Path) -> None:
    """Where two tensors could be meant, their bits tell which of them is."""
    model = build("gemma3").bfloat16()
    source = save(model, tmp_path / "base")
    stored = load_file(source / SINGLE)
    old = f"language_model.model.{FIRST}"
    both = {f"{part}.{FIRST}": stored[old].clone() for part in ("a.model", "b.model")}
    both[f"a.model.{FIRST}"] += 1
    rest = {k: v for k, v in stored.items() if k != old}
    save_file(rest | both, source / SINGLE, {"format": "pt"})
    change = changed_weights(model, find_targets(model, [0]))
    (tmp_path / "out").mkdir()
    apply_to_directory(change, source, tmp_path / "out")
    after = load_file(tmp_path / "out" / SINGLE)
    changed = [k for k, v in (rest | both).items() if not torch.equal(v, after[k])]
    assert changed == [f"b.model.{FIRST}"]
    both[f"a.model.{FIRST}"] = both[f"b.model.{FIRST}"].clone()
    save_file(rest | both, source / SINGLE, {"format": "pt"})
    with pytest.raises(InterventionError, match=r"twice, as \w+\.model\.layers"):
        apply_to_directory(change, source, source)


def test_renamed_past_recognition(tmp_path: Path) -> None:
    """Files of other programs call a projection by another name altogether."""
    model = build("llama").bfloat16()
    source = save(model, tmp_path / "base")
    stored = load_file(source / SINGLE)
    renamed = {k.replace("mlp.down_proj", "ffn.w2"): v for k, v in stored.items()}
    save_file(renamed, source / SINGLE, {"format": "pt"})
    change = changed_weights(model, find_targets(model))
    apply_to_directory(change, source, source)
    change.apply(model)
    after = load_file(source / SINGLE)
    assert torch.equal(
        after["model.layers.0.ffn.w2.weight"], model.get_parameter(f"model.{FIRST}")
    )


def test_adapter_of_a_wrapper(gemma: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    model = read(gemma, torch.float32)
    change = changed_weights(model, find_targets(model))
    lora(change, tmp_path / "lora", base=str(gemma))
    ids = torch.tensor([[5, 9, 3]])
    change.apply(model)
    with torch.no_grad():
        expected = model(input_ids=ids).logits
        base = read(gemma, torch.float32)
        adapted = peft.PeftModel.from_pretrained(base, tmp_path / "lora")
        logits = adapted(input_ids=ids).logits
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)


def test_command_line(gemma: Path, tmp_path: Path, capsys: Any) -> None:
    change = tmp_path / "change.safetensors"
    model = read(gemma, torch.float32)
    changed_weights(model, find_targets(model)).save(change)
    given = ["--model", str(gemma), "--intervention", str(change)]
    assert main(["explain", "--model", str(gemma), "--dtype", "float32"]) == 0
    assert "model.language_model.layers.0" in capsys.readouterr().out
    assert main(["apply", *given, "--out", str(tmp_path / "out")]) == 0
    back = ["--model", str(tmp_path / "out"), "--intervention", str(change)]
    assert main(["revert", *back, "--out", str(tmp_path / "back")]) == 0
    assert contents(tmp_path / "back") == contents(gemma)
    argv = ["export", *given, "--to", "lora", "--out", str(tmp_path / "lora")]
    assert main([*argv, "--model-dtype", "bfloat16"]) == 0
    argv = ["compare", str(gemma), str(tmp_path / "out"), "--intervention", str(change)]
    assert main(argv) == 0
