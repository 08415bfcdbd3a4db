# SPDX-License-Identifier: Apache-2.0
"""The tensors of a model, saved or loaded, one at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from torch import Tensor, nn

from cintervene.errors import ArgumentError, ModelError
from cintervene.models.saved import DTYPES, SavedTensors

NAMES = {dtype: name for name, dtype in DTYPES.items()}


class Tensors(Protocol):
    """Where the tensors of a model can be had.

    Attributes
    ----------
    tied : set of str
        Names of tensors that have another name too.
    """

    tied: frozenset[str]

    def __iter__(self) -> Iterator[str]:
        """The names."""

    def dtype(self, name: str) -> str:
        """The type of a tensor as safetensors writes it."""

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor."""

    def read(self, name: str) -> Tensor:
        """Return a tensor, on the CPU."""


class Loaded:
    """The tensors of a model in memory."""

    def __init__(self, model: nn.Module) -> None:
        state = model.state_dict()
        self._tensors = {n: t for n, t in state.items() if isinstance(t, Tensor)}
        offloaded = [name for name, tensor in self._tensors.items() if tensor.is_meta]
        if offloaded:
            raise ModelError(
                f"{offloaded[0]} is on the meta device (offloaded or never loaded); "
                "compare the directories that the models were loaded from"
            )
        places: dict[tuple[int, tuple[int, ...]], str] = {}
        tied = set()
        for name, tensor in self._tensors.items():
            place = tensor.data_ptr(), tuple(tensor.shape)
            if tensor.numel() and places.setdefault(place, name) != name:
                tied.add(name)
        self.tied = frozenset(tied)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def dtype(self, name: str) -> str:
        """The type of a tensor as safetensors writes it, or else as torch does."""
        dtype = self._tensors[name].dtype
        return NAMES.get(dtype, str(dtype))

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor."""
        return tuple(self._tensors[name].shape)

    def read(self, name: str) -> Tensor:
        """Return a tensor, on the CPU."""
        return self._tensors[name].detach().cpu()


def tensors_of(model: str | os.PathLike[str] | nn.Module, argument: str) -> Tensors:
    """Return the tensors of a directory with safetensors, or of a loaded model.

    Raises
    ------
    ArgumentError
        `model` is neither.
    ModelError
        The directory holds no model, or a tensor is on the meta device.
    """
    if isinstance(model, nn.Module):
        return Loaded(model)
    if isinstance(model, (str, os.PathLike)):
        return SavedTensors(Path(model))
    raise ArgumentError(
        f"{argument}: got {type(model).__name__}, expected a directory or a model"
    )


def paired(old: Tensors, new: Tensors) -> tuple[dict[str, str], list[str], list[str]]:
    """Match two models' tensors by name, or by a name with a prefix added or removed.

    Returns
    -------
    pairs : dict of str to str
        Names in `new` by names in `old`.
    lost, added : list of str
        Names in one of them only, other names of tied tensors left out.
    """
    names = set(new)
    pairs = {name: name for name in old if name in names}
    rest = [name for name in new if name not in pairs]
    for name in old:
        if name in pairs:
            continue
        others = [n for n in rest if n.endswith(f".{name}") or name.endswith(f".{n}")]
        if len(others) == 1:
            pairs[name] = others[0]
            rest.remove(others[0])
    lost = [name for name in old if name not in pairs and name not in old.tied]
    return pairs, lost, [name for name in rest if name not in new.tied]
