# SPDX-License-Identifier: Apache-2.0
"""transformers' `from_pretrained`, in the one place where it is called.

A model's directory may bring Python code of its own, and transformers runs it where it
is allowed to, and asks at the terminal where nothing was said. Here it is refused: what
a directory holds is data.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import torch

from cintervene.errors import ModelError

__all__ = ["read_classifier", "read_config", "read_model", "read_tokenizer"]

# Without types: much of transformers has none.
transformers: Any = import_module("transformers")
modeling_auto: Any = import_module("transformers.models.auto.modeling_auto")

# By class of transformers: its table of model classes, the text-only ones first.
LANGUAGE_MODELS = {
    "AutoModelForCausalLM": "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "AutoModelForImageTextToText": "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES",
    "AutoModelForMultimodalLM": "MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES",
}


def read_config(name: str, **options: Any) -> Any:
    """Return the configuration of a model.

    Parameters
    ----------
    name : str
        A directory, or a name on the hub.
    **options
        As transformers takes them, `local_files_only` for instance.

    Raises
    ------
    ModelError
        It cannot be read, or asks for code that is not the installed libraries'.
    """
    config = _read("AutoConfig", name, **options)
    for part in (config, *_parts(config)):
        for kind in ("attn", "experts"):
            asked = getattr(part, f"_{kind}_implementation", None)
            if isinstance(asked, str) and "/" in asked:
                raise ModelError(
                    f"{name} asks for the kernel {asked!r} of the hub, code that is "
                    f"never run; take {kind}_implementation out of its config.json"
                )
    return config


def read_tokenizer(name: str, **options: Any) -> Any:
    """Return the tokenizer of a model; of one that takes images too, without the rest.

    The parameters are those of `read_config`.
    """
    return _read("AutoTokenizer", name, **options)


def read_model(name: str, **options: Any) -> Any:
    """Return the language model of a directory, as the class that it was saved from.

    A model that takes images too is read with the parts for them, so that its weights
    have the names that other programs know.

    The parameters are those of `read_config`, and those of transformers' models.
    """
    kind = "AutoModelForCausalLM"
    if "gguf_file" not in options:
        local = options.get("local_files_only", False)
        options["config"] = read_config(name, local_files_only=local)
        kind = _kind(options["config"])
    return _read(kind, name, **options)


def read_classifier(name: str, **options: Any) -> Any:
    """Return a model with a head for classes; see `read_config`."""
    kind = "AutoModelForSequenceClassification"
    return _read(kind, name, use_safetensors=True, **options)


def _read(kind: str, name: str, **options: Any) -> Any:
    reader = getattr(transformers, kind)
    try:
        return reader.from_pretrained(name, trust_remote_code=False, **options)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if "trust_remote_code" in str(error):
            raise ModelError(
                f"{name} brings code of its own, which is never run; expected a model "
                "whose classes are transformers' (take auto_map out of its .json files "
                "where they are, or convert it)"
            ) from error
        raise ModelError(
            f"{options.get('gguf_file', name)} could not be loaded "
            f"({_first_line(error)}); check that it is a whole language model with its "
            "tokenizer"
        ) from error


def _kind(config: Any) -> str:
    """The class of transformers that makes what the files were saved from."""
    kinds = {
        kind: getattr(modeling_auto, table, {}).get(config.model_type)
        for kind, table in LANGUAGE_MODELS.items()
    }
    saved = (getattr(config, "architectures", None) or [None])[0]
    for kind, name in kinds.items():
        if name is not None and name == saved:
            return kind
    known = (kind for kind, name in kinds.items() if name is not None)
    return next(known, "AutoModelForCausalLM")


def _parts(config: Any) -> Iterator[Any]:
    """The configurations of a model's parts, such as the one for images."""
    for name in getattr(config, "sub_configs", ()):
        part = getattr(config, name, None)
        if part is not None:
            yield part
            yield from _parts(part)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
