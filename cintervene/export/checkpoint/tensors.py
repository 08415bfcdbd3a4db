# SPDX-License-Identifier: Apache-2.0
"""The tensors of a model, saved or loaded, one at a time."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Protocol

from torch import Tensor, nn

from cintervene.errors import ArgumentError, ModelError
from cintervene.models.saved import DTYPES, SavedTensors, numbers, shared_end

# Two names of one tensor end alike in two parts at least, such as "norm.weight".
LEAST_END = 2
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
    """Match two models' tensors by name, or by the end of the name.

    Classes that load one model differ in what they call the way to a tensor:
    `language_model.model.layers` is `model.language_model.layers` elsewhere.

    Returns
    -------
    pairs : dict of str to str
        Names in `new` by names in `old`.
    lost, added : list of str
        Names in one of them only, other names of tied tensors left out.
    """
    names = set(new)
    pairs = {name: name for name in old if name in names}
    groups = _by_numbers(name for name in new if name not in pairs)
    for kind, left in _by_numbers(name for name in old if name not in pairs).items():
        pairs |= _matched(left, groups.get(kind, []))
    taken = set(pairs.values())
    lost = [name for name in old if name not in pairs and name not in old.tied]
    added = [name for name in new if name not in taken and name not in new.tied]
    return pairs, lost, added


def _by_numbers(names: Iterable[str]) -> dict[tuple[str, ...], list[str]]:
    """Names by the numbers in them, which those of one tensor have in common."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for name in names:
        groups.setdefault(tuple(numbers(name)), []).append(name)
    return groups


def _matched(names: list[str], others: list[str]) -> dict[str, str]:
    """Pair names with the others that end likest, as long as it is clear which."""
    matched: dict[str, str] = {}
    found = sorted(
        ((shared_end(n, o), n, o) for n in names for o in others), reverse=True
    )
    for end, same in groupby(found, key=lambda item: item[0]):
        fresh = [
            (n, o) for _, n, o in same if n not in matched and o not in matched.values()
        ]
        ours = Counter(n for n, _ in fresh)
        theirs = Counter(o for _, o in fresh)
        if end >= LEAST_END:
            matched |= {n: o for n, o in fresh if ours[n] == theirs[o] == 1}
    return matched
