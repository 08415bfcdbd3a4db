# SPDX-License-Identifier: Apache-2.0
"""Weights of a loaded model as its files hold them, where the types differ."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from torch import Tensor, nn

from cintervene.errors import ModelError
from cintervene.models.embedded import EMBEDDED, cache_directory
from cintervene.models.saved import DTYPES, SavedTensors
from cintervene.models.weights import FLOAT_DTYPES, same_bits
from cintervene.utils.homes import expanded
from cintervene.utils.lazy import lazy

__all__ = ["StoredWeights"]


class StoredWeights:
    """The weights in the files that a model was loaded from.

    A model is often loaded in another type than it is stored in, because it was asked
    for or because config.json says so. What is written into the files, and taken back
    there, is about theirs.

    Parameters
    ----------
    model : nn.Module
        It tells where it is from; files that are gone, or hold other weights by now,
        count as none.
    """

    def __init__(self, model: nn.Module) -> None:
        self._source = str(getattr(model, "name_or_path", "") or "")

    def find(self, name: str, weight: Tensor) -> Tensor | None:
        """Return a weight as it is stored, on the CPU, if that is in another type.

        Parameters
        ----------
        name : str
            Path of the parameter in the model.
        weight : Tensor
            What the model holds. What is found is this where it is rounded to its type.
        """
        saved = self._saved
        if saved is None:
            return None
        for key in saved.candidates(name, tuple(weight.shape)):
            dtype = DTYPES.get(saved.dtype(key))
            if saved.shape(key) != weight.shape or dtype not in FLOAT_DTYPES:
                continue
            if dtype == weight.dtype:
                continue
            value = saved.read(key)
            if same_bits(value.to(weight.dtype), weight):
                return value
        return None

    @lazy
    def _saved(self) -> SavedTensors | None:
        directory = _directory(self._source)
        if directory is None:
            return None
        try:
            return SavedTensors(directory)
        except (ModelError, OSError):
            return None


def _directory(source: str) -> Path | None:
    """Where a model lies that was loaded by a name, if that is on this machine."""
    if not source:
        return None
    if source in EMBEDDED:
        return cache_directory() / "models" / source
    path = expanded(source)
    if path.is_dir():
        return path
    try:
        hub = import_module("huggingface_hub")
        cached = hub.try_to_load_from_cache(source, "config.json")
    except (ImportError, ValueError):
        # Not every name of a model is one that the hub could have.
        return None
    return Path(cached).parent if isinstance(cached, str) else None
