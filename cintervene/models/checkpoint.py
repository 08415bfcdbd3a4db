# SPDX-License-Identifier: Apache-2.0
"""Interventions on saved models: the bytes of the changed weights, and no others.

A directory as written by `save_pretrained` is copied file by file, and only the weights
that the intervention changes are written anew, where they lie in their safetensors
files. So a checkpoint of mixed types keeps them, a large one needs no more memory than
the changed weights, and taking the change back gives the same files again.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from cintervene.errors import InterventionError, ModelError
from cintervene.models.intervention import Applied, Intervention
from cintervene.models.weights import raw_bytes

__all__ = ["apply_to_directory", "revert_directory"]

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
# Other forms of the weights: copied, they would hand on the unchanged model.
WEIGHTS = (
    ".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".h5", ".msgpack", ".onnx",
)  # fmt: skip
DTYPES = {
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F32": torch.float32,
    "F64": torch.float64,
}


@dataclass(frozen=True)
class _Place:
    """Where a tensor lies in the files of a model."""

    file: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    size: int


class _Weights(nn.Module):
    """The few weights of a saved model that an intervention changes."""

    def __init__(self, directory: Path, places: Mapping[str, _Place]) -> None:
        super().__init__()
        self._weights = {
            name: nn.Parameter(_read(directory, place), requires_grad=False)
            for name, place in places.items()
        }

    def get_parameter(self, target: str) -> nn.Parameter:
        """Return a weight by the name that the intervention has for it."""
        return self._weights[target]


def apply_to_directory(
    intervention: Intervention,
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
) -> Applied:
    """Write the changed copy of a saved model.

    Parameters
    ----------
    intervention : Intervention
    source : path
        Directory of the model, with safetensors files.
    target : path
        Existing directory to write to, whose files of the same names are replaced. It
        may be `source`. Files of other forms of the weights and subdirectories of
        `source` are not copied.

    Raises
    ------
    InterventionError
        As `Intervention.apply`; nothing is written then.
    ModelError
        The model is damaged or stored in another way.
    OSError
        A file cannot be read or written; what `target` holds then is not complete.
    """
    source, target = Path(source), Path(target)
    places = _locate(source, list(intervention.edits))
    weights = _Weights(source, places)
    applied = intervention.apply(weights)
    _write(source, target, places, weights)
    return applied


def revert_directory(
    intervention: Intervention,
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
) -> None:
    """Write the copy of a changed model as it was before, bit by bit.

    Parameters and errors are those of `apply_to_directory`.

    Raises
    ------
    InterventionError
        As `Intervention.revert`; nothing is written then.
    """
    source, target = Path(source), Path(target)
    places = _locate(source, list(intervention.edits))
    weights = _Weights(source, places)
    intervention.revert(weights)
    _write(source, target, places, weights)


def _locate(directory: Path, names: list[str]) -> dict[str, _Place]:
    tensors: dict[str, _Place] = {}
    for file in _weight_files(directory):
        tensors |= _places(directory / file, file)
    return {name: tensors[_key(directory, tensors, name)] for name in names}


def _weight_files(directory: Path) -> list[str]:
    """Names of the safetensors files that make up the model."""
    index = directory / INDEX
    if (directory / SINGLE).is_file():
        return [SINGLE]
    if not index.is_file():
        raise ModelError(
            f"{directory} holds neither {SINGLE} nor {INDEX}; give the directory of a "
            "model as saved with save_pretrained"
        )
    try:
        files = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
        missing = [
            file for file in files if not (directory / Path(file).name).is_file()
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{index} is damaged ({error}); get it again") from error
    if missing:
        raise ModelError(f"{directory / missing[0]} is missing; get a whole copy")
    return [Path(file).name for file in files]


def _places(path: Path, file: str) -> dict[str, _Place]:
    try:
        with safe_open(path, framework="pt"):
            pass
    except SafetensorError as error:
        raise ModelError(f"{path} is damaged ({error}); get it again") from error
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length))
    places = {}
    for key, entry in header.items():
        dtype = DTYPES.get(entry.get("dtype"))
        if dtype is not None:
            begin, end = entry["data_offsets"]
            shape = tuple(entry["shape"])
            places[key] = _Place(file, dtype, shape, 8 + length + begin, end - begin)
    return places


def _key(directory: Path, tensors: Mapping[str, _Place], name: str) -> str:
    """Find a weight under its name, or under one with a prefix less or more.

    Whether it is the right one is for the hash to tell.
    """
    if name in tensors:
        return name
    found = [
        key for key in tensors if name.endswith(f".{key}") or key.endswith(f".{name}")
    ]
    if len(found) != 1:
        raise InterventionError(
            f"{directory} holds no plain tensor {name}; this intervention was made for "
            "another model, or this one is quantised"
        )
    return found[0]


def _read(directory: Path, place: _Place) -> Tensor:
    with (directory / place.file).open("rb") as stream:
        stream.seek(place.start)
        raw = np.fromfile(stream, dtype=np.uint8, count=place.size)
    return torch.from_numpy(raw).view(place.dtype).view(place.shape)


def _write(
    source: Path, target: Path, places: Mapping[str, _Place], weights: nn.Module
) -> None:
    if not source.samefile(target):
        _copy(source, target)
    for name, place in places.items():
        with (target / place.file).open("r+b") as stream:
            stream.seek(place.start)
            stream.write(raw_bytes(weights.get_parameter(name)).tobytes())


def _copy(source: Path, target: Path) -> None:
    own = set(_weight_files(source))
    for path in sorted(source.iterdir()):
        other_form = path.name not in own and path.suffix.lower() in WEIGHTS
        if path.is_file() and not other_form:
            shutil.copyfile(path, target / path.name)
