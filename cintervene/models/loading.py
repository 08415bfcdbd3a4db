# SPDX-License-Identifier: Apache-2.0
"""Loading a language model and its tokenizer from wherever they are."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from cintervene.errors import ArgumentError, ModelError
from cintervene.models.devices import usable_device
from cintervene.models.directory import check_config, check_settled, check_special
from cintervene.models.embedded import EMBEDDED, embedded_directory
from cintervene.models.gguf_header import check_gguf
from cintervene.models.pretrained import read_model, read_tokenizer
from cintervene.utils.homes import expanded
from cintervene.utils.progress import Progress, one_step, silent

# Without types: much of transformers has none.
transformers: Any = import_module("transformers")
gguf_utils: Any = import_module("transformers.modeling_gguf_pytorch_utils")

logger = logging.getLogger(__name__)

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
DTYPES = {
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float32": torch.float32,
    "float64": torch.float64,
}
Loaded = tuple[Any, Any]


def load(
    spec: str | os.PathLike[str] | Loaded = "smollm2",
    *,
    hub: bool = False,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> Loaded:
    """Load a language model and its tokenizer.

    Parameters
    ----------
    spec : str, path or (model, tokenizer)
        `"smollm2"` or `"gemma3-270m"`: from the cache, fetched and converted at the
        first time (the latter under the Gemma terms). A directory with safetensors. A
        `.gguf` file, which is dequantised. With `hub=True` a name on the hub. A pair
        that is loaded already is returned as it is.
    hub : bool, default False
        Whether names are looked up on the hub, those of embedded models included.
        Without it nothing is fetched from there.
    dtype : torch.dtype or str, optional
        What config.json says by default and with "auto", bfloat16 for GGUF files and
        embedded models.
    device : torch.device or str, default "cpu"
    progress : Progress, optional
        Called as ``progress(phase, done, total)``, with phases such as
        "fetching smollm2", "converting smollm2" and "loading smollm2".

    Returns
    -------
    model : transformers.PreTrainedModel
        In evaluation mode.
    tokenizer : transformers.PreTrainedTokenizerBase

    Raises
    ------
    ModelError
        There is no such model, it is damaged, or it is stored in an unsafe format.
    ArgumentError
        `dtype` is not a floating-point type, or there is no such device here.
    """
    if isinstance(spec, tuple):
        return spec
    place = usable_device(device)
    model, tokenizer = _load(os.fspath(spec), hub, _dtype(dtype), progress)
    return model.to(place).eval(), tokenizer


def _load(
    spec: str, hub: bool, dtype: torch.dtype | None, progress: Progress
) -> Loaded:
    source, path = EMBEDDED.get(spec), expanded(spec)
    if source is not None and not hub:
        return _load_embedded(spec, dtype, progress)
    if source is None and path.is_dir():
        _check_directory(path)
        with one_step(progress, f"loading {path}"):
            return _pretrained(str(path), dtype)
    if path.suffix.lower() in PICKLES:
        raise ModelError(
            f"{spec} is a pickle, which runs code when it is loaded; convert it to "
            "safetensors and give the directory"
        )
    if path.suffix.lower() == ".gguf" and (path.is_file() or not hub):
        with one_step(progress, f"converting {path}"):
            return _from_gguf(path, dtype or torch.bfloat16)
    if hub:
        name = spec if source is None else source.hub
        with one_step(progress, f"loading {name}"):
            return _pretrained(name, dtype, local=False)
    raise ModelError(
        f"model {spec!r} is neither a directory, nor a .gguf file, nor one of "
        f"{', '.join(EMBEDDED)}; to fetch it from the hub, give hub=True"
    )


def _load_embedded(name: str, dtype: torch.dtype | None, progress: Progress) -> Loaded:
    logger.info("%s is used under %s", name, EMBEDDED[name].licence)
    directory = embedded_directory(name, _convert, progress)
    with one_step(progress, f"loading {name}"):
        model, tokenizer = _pretrained(str(directory), dtype)
    model.name_or_path = name
    return model, tokenizer


def _dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    if dtype is None or dtype == "auto":
        return None
    if dtype in DTYPES.values():
        return dtype  # type: ignore[return-value]
    named = DTYPES.get(str(dtype))
    if named is None:
        raise ArgumentError(
            f"dtype: got {dtype!r}, expected one of {', '.join(DTYPES)}, or None"
        )
    return named


def _check_directory(path: Path) -> None:
    """Name what is missing before transformers fails at it in its own way."""
    check_settled(path)
    if not (path / "config.json").is_file():
        raise ModelError(
            f"{path} holds no config.json; give the directory of a model as saved with "
            "save_pretrained"
        )
    check_special(path)
    check_config(path)
    if any(path.glob("*.safetensors")):
        return
    pickles = sorted(p.name for p in path.iterdir() if p.suffix in PICKLES)
    if pickles:
        raise ModelError(
            f"{path} holds its weights as {pickles[0]}, a pickle, which runs code when "
            "it is loaded; convert it to safetensors (save_pretrained does)"
        )
    raise ModelError(f"{path} holds no .safetensors file; the weights are missing")


def _pretrained(
    name: str, dtype: torch.dtype | None, local: bool = True, **options: Any
) -> Loaded:
    with quiet():
        tokenizer = read_tokenizer(name, local_files_only=local, **options)
        if "gguf_file" not in options:
            options["use_safetensors"] = True
        elif hasattr(transformers, "GgufConfig"):
            # Without it the weights may stay in their packed blocks; transformers 4
            # always unpacks them.
            config = transformers.GgufConfig(dequantize=True)
            options["quantization_config"] = config
        model, report = read_model(
            name,
            dtype=dtype or "auto",
            local_files_only=local,
            output_loading_info=True,
            **options,
        )
    missing = sorted(report["missing_keys"])
    if missing:
        raise ModelError(
            f"{name} lacks {len(missing)} tensors of its {type(model).__name__}, "
            f"{missing[0]} among them; get a whole copy"
        )
    return model, tokenizer


def _from_gguf(path: Path, dtype: torch.dtype) -> Loaded:
    try:
        check_gguf(path)
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror})") from error
    return _pretrained(str(path.parent), dtype, gguf_file=path.name)


def _convert(gguf: Path, directory: Path) -> None:
    model, tokenizer = _from_gguf(gguf, torch.bfloat16)
    try:
        with quiet():
            model.save_pretrained(directory)
            tokenizer.save_pretrained(directory)
    except SafetensorError as error:
        raise OSError(str(error)) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' progress bars and notices away; as they were afterwards."""
    log = transformers.utils.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    gguf_bar = gguf_utils.tqdm
    log.set_verbosity_error()
    log.disable_progress_bar()
    gguf_utils.tqdm = _no_bar
    try:
        yield
    finally:
        gguf_utils.tqdm = gguf_bar
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()


def _no_bar(items: Any, **_options: Any) -> Any:
    return items
