# SPDX-License-Identifier: Apache-2.0
"""The tensors of a saved model, read where they lie in its files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from cintervene.errors import ModelError
from cintervene.models.directory import check_settled
from cintervene.models.loading import PICKLES
from cintervene.utils.json_text import parse_json

__all__ = [
    "DTYPES",
    "INDEX",
    "SINGLE",
    "Place",
    "SavedTensors",
    "alike",
    "numbers",
    "shared_end",
]

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
DTYPES = {
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F32": torch.float32,
    "F64": torch.float64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True)
class Place:
    """Where a tensor lies in the files of a model.

    Attributes
    ----------
    file : str
    dtype : str
        As safetensors writes it.
    shape : tuple of int
    start, size : int
        Bytes from the beginning of the file, and bytes in all.
    """

    file: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    size: int


class SavedTensors:
    """The safetensors files of a model as saved with `save_pretrained`.

    Only the headers are kept in memory; the whole files are never read.

    Parameters
    ----------
    directory : path

    Attributes
    ----------
    directory : Path
    files : list of str
        Names of the safetensors files that make up the model, their index included.
    places : dict of str to Place
        By name of the tensor.

    Raises
    ------
    ModelError
        The model is damaged, or stored in another way.
    """

    # Files hold each tensor once.
    tied: frozenset[str] = frozenset()

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = Path(directory)
        check_settled(self.directory)
        self.files = _weight_files(self.directory)
        self.places: dict[str, Place] = {}
        for file in self.files:
            if file != INDEX:
                self.places |= _places(self.directory / file, file)

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def candidates(self, name: str, shape: tuple[int, ...]) -> list[str]:
        """Return which tensors a weight may be, the likeliest first.

        Files call a weight as the model did that was saved, the class that is loaded
        may call it otherwise: `language_model.model.layers.3.mlp.down_proj.weight` and
        `model.language_model.layers.3.mlp.down_proj.weight`. What stays are the shape
        and the number of the layer, and mostly the end of the name.
        """
        if name in self.places:
            return [name]
        return alike({key: one.shape for key, one in self.places.items()}, name, shape)

    def dtype(self, name: str) -> str:
        """The type of a tensor."""
        return self.places[name].dtype

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor."""
        return self.places[name].shape

    def read(self, name: str) -> Tensor:
        """Return a copy of a tensor.

        Raises
        ------
        ModelError
            It is of a type that is not known.
        """
        place = self.places[name]
        dtype = DTYPES.get(place.dtype)
        if dtype is None:
            raise ModelError(
                f"{name} in {self.directory / place.file} is of the type "
                f"{place.dtype}; expected one of {', '.join(DTYPES)}"
            )
        with (self.directory / place.file).open("rb") as stream:
            stream.seek(place.start)
            raw = np.fromfile(stream, dtype=np.uint8, count=place.size)
        return torch.from_numpy(raw).view(dtype).view(place.shape)


def alike(
    shapes: Mapping[str, tuple[int, ...]], name: str, shape: tuple[int, ...]
) -> list[str]:
    """Return which names may be other ones of a tensor, the likeliest first.

    Parameters
    ----------
    shapes : mapping of str to tuple of int
        By name; those of `shape` count that have the numbers of `name`.
    name : str
    shape : tuple of int
    """
    wanted = numbers(name)
    keys = [key for key, s in shapes.items() if s == shape and numbers(key) == wanted]
    return sorted(keys, key=lambda key: -shared_end(key, name))


def shared_end(a: str, b: str) -> int:
    """Return how many dotted parts two names have in common, from their ends."""
    parts = zip(reversed(a.split(".")), reversed(b.split(".")), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], parts))


def numbers(name: str) -> list[str]:
    """Return the numbers among the dotted parts of a name, that of a layer mostly."""
    return [part for part in name.split(".") if part.isdigit()]


def _weight_files(directory: Path) -> list[str]:
    index = directory / INDEX
    if (directory / SINGLE).is_file():
        return [SINGLE]
    if not index.is_file():
        _refuse_pickles(directory)
        raise ModelError(
            f"{directory} holds neither {SINGLE} nor {INDEX}; give the directory of a "
            "model as saved with save_pretrained"
        )
    try:
        named = sorted(set(parse_json(index.read_text("utf-8"))["weight_map"].values()))
        files = [Path(file).name for file in named]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{index} is damaged ({error}); get it again") from error
    for file in files:
        if Path(file).suffix != ".safetensors":
            raise ModelError(
                f"{index} names {file}, which is no safetensors file; convert it with "
                "save_pretrained"
            )
        if not (directory / file).is_file():
            raise ModelError(f"{directory / file} is missing; get a whole copy")
    return [*files, INDEX]


def _refuse_pickles(directory: Path) -> None:
    entries = directory.iterdir() if directory.is_dir() else ()
    pickles = sorted(p.name for p in entries if p.suffix.lower() in PICKLES)
    if pickles:
        raise ModelError(
            f"{directory} holds its weights as {pickles[0]}, a pickle, which runs code "
            "when it is loaded; convert it to safetensors (save_pretrained does)"
        )


def _places(path: Path, file: str) -> dict[str, Place]:
    try:
        with safe_open(path, framework="pt"):
            pass
    except SafetensorError as error:
        raise ModelError(f"{path} is damaged ({error}); get it again") from error
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = parse_json(stream.read(length))
    header.pop("__metadata__", None)
    places = {}
    for key, entry in header.items():
        begin, end = entry["data_offsets"]
        start = 8 + length + begin
        shape = tuple(entry["shape"])
        places[key] = Place(file, entry["dtype"], shape, start, end - begin)
    return places
