# SPDX-License-Identifier: Apache-2.0
"""Code that a model's directory brings is never run, whoever says yes."""

from __future__ import annotations

import io
import json
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.saved_models import save_tiny_model

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from cintervene.cli import main
from cintervene.cli.common.judges import named_judges
from cintervene.errors import ModelError
from cintervene.models import load, loading

CODE = """
from pathlib import Path
Path({marker!r}).touch()
from transformers import LlamaConfig, LlamaForCausalLM, LlamaTokenizer
class Foreign(LlamaConfig):
    model_type = "foreign"
class ForeignModel(LlamaForCausalLM): pass
class ForeignTokenizer(LlamaTokenizer): pass
def generate(model, *args, **options): return args[0]
"""
Change = Callable[[Path], None]


def put(directory: Path, name: str, **entries: Any) -> None:
    """Change some entries of a JSON file."""
    path = directory / name
    known = json.loads(path.read_text("utf-8")) if path.exists() else {}
    path.write_text(json.dumps(known | entries), "utf-8")


def tokenizer_map(directory: Path) -> None:
    put(
        directory,
        "tokenizer_config.json",
        tokenizer_class="ForeignTokenizer",
        auto_map={"AutoTokenizer": ["code.ForeignTokenizer", None]},
    )


def every_map(directory: Path) -> None:
    for name in ("processor_config.json", "preprocessor_config.json"):
        put(directory, name, processor_class="Foreign", auto_map={
            "AutoProcessor": "code.Foreign", "AutoImageProcessor": "code.Foreign",
        })  # fmt: skip
    put(directory, "generation_config.json", custom_generate="code.generate")


def custom_generate(directory: Path) -> None:
    (directory / "custom_generate").mkdir()
    code = (directory / "code.py").read_text("utf-8")
    (directory / "custom_generate" / "generate.py").write_text(code, "utf-8")
    put(
        directory, "config.json", auto_map={"AutoModelForCausalLM": "code.ForeignModel"}
    )


def adapter(directory: Path) -> None:
    mapping = {"parent_library": "code", "base_model_class": "Foreign"}
    put(directory, "adapter_config.json", peft_type="LORA", auto_mapping=mapping,
        base_model_name_or_path=str(directory), target_modules=["down_proj"],
        auto_map={"AutoModel": "code.Foreign"})  # fmt: skip


# By kind: what is put into the directory, and whether it can be loaded all the same.
KINDS: dict[str, tuple[Change, bool]] = {
    "configuration": (
        lambda d: put(
            d, "config.json", model_type="foreign",
            auto_map={"AutoConfig": "code.Foreign"},
        ),
        False,
    ),
    "configuration elsewhere": (
        lambda d: put(
            d, "config.json", model_type="foreign",
            auto_map={"AutoConfig": "someone/else--code.Foreign"},
        ),
        False,
    ),
    "model": (
        lambda d: put(
            d, "config.json", model_type="clip",
            auto_map={"AutoModelForCausalLM": "code.ForeignModel"},
        ),
        False,
    ),
    "model that is known": (
        lambda d: put(
            d, "config.json",
            auto_map={
                "AutoConfig": "code.Foreign",
                "AutoModelForCausalLM": "code.ForeignModel",
            },
        ),
        True,
    ),
    "kernel of the hub": (
        lambda d: put(d, "config.json", attn_implementation="someone/kernel"),
        False,
    ),
    "tokenizer": (tokenizer_map, False),
    "processor, generation": (every_map, True),
    "generation": (custom_generate, True),
    "adapter": (adapter, False),
}  # fmt: skip


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model's directory with code in it, and a user who agrees to everything."""
    place = save_tiny_model(tmp_path / "model")
    code = CODE.format(marker=str(tmp_path / "marker"))
    (place / "code.py").write_text(code, "utf-8")
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 20))
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    return place


@pytest.mark.parametrize("kind", KINDS)
def test_directory(kind: str, directory: Path, tmp_path: Path) -> None:
    change, loads = KINDS[kind]
    change(directory)
    if loads:
        model, _ = load(directory)
        model.generate(torch.tensor([[5, 6]]), max_new_tokens=1, do_sample=False)
    else:
        with pytest.raises(ModelError) as caught:
            load(directory)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "marker").exists()


def test_the_message_says_what_to_do(directory: Path) -> None:
    KINDS["configuration"][0](directory)
    with pytest.raises(
        ModelError, match=r"code of its own, which is never run.*auto_map"
    ):
        load(directory)


def test_directory_of_a_gguf_file(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies beside the file is not the file's."""
    tokenizer_map(directory)
    put(directory, "config.json", model_type="foreign",
        auto_map={"AutoConfig": "code.Foreign"})  # fmt: skip
    path = directory / "model.gguf"
    path.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(ModelError):
        load(path)
    monkeypatch.setattr(loading, "check_gguf", lambda _path: None)
    asked: list[Any] = []
    readers = ("AutoTokenizer", "AutoModelForCausalLM")
    for name in readers:
        monkeypatch.setattr(
            getattr(transformers, name),
            "from_pretrained",
            lambda *_args, **options: (
                asked.append(options) or (None, {"missing_keys": ()})
            ),
        )
    loading._from_gguf(path, torch.bfloat16)
    assert [one["trust_remote_code"] for one in asked] == [False, False]
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("kind", ["configuration", "tokenizer", "classifier"])
def test_judge(kind: str, directory: Path, tmp_path: Path) -> None:
    put(directory, "config.json", architectures=["LlamaForSequenceClassification"])
    if kind == "classifier":
        put(directory, "config.json", model_type="clip", auto_map={
            "AutoModelForSequenceClassification": "code.ForeignModel"
        })  # fmt: skip
    else:
        KINDS[kind][0](directory)
    asked = Namespace(
        judge=str(directory), judge_template=None, hub=False, device="cpu"
    )
    with pytest.raises(ModelError):
        named_judges(asked, None)  # type: ignore[arg-type]
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("command", ["explain", "compare"])
def test_command(command: str, directory: Path, tmp_path: Path, capsys: Any) -> None:
    KINDS["configuration"][0](directory)
    tokenizer_map(directory)
    argv = {
        "explain": ["explain", "--model", str(directory)],
        "compare": ["compare", str(directory), str(directory / "x.gguf")],
    }[command]
    assert main(argv) == 3
    lines = capsys.readouterr().err.strip().splitlines()
    assert "[y/N]" not in lines[-1]
    assert not (tmp_path / "marker").exists()
