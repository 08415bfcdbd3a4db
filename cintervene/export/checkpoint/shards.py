# SPDX-License-Identifier: Apache-2.0
"""The tensors of a saved model, found and written where they lie in its files."""

from __future__ import annotations

from copy import copy
from pathlib import Path

from torch import Tensor

from cintervene.errors import InterventionError
from cintervene.intervention.edit import Edit
from cintervene.models.saved import DTYPES, INDEX, SINGLE, SavedTensors, shared_end
from cintervene.models.weights import FLOAT_DTYPES, raw_bytes

__all__ = ["DTYPES", "FLOATS", "INDEX", "SINGLE", "Shards"]

# The types of weights that can be changed, as safetensors writes them.
FLOATS = {name for name, dtype in DTYPES.items() if dtype in FLOAT_DTYPES}


class Shards(SavedTensors):
    """The safetensors files of a model, whose weights can be written anew."""

    def find(self, name: str, edit: Edit) -> str:
        """Return the stored name of a weight: its own, or that of the same bits.

        Raises
        ------
        InterventionError
            There is none, or more than one.
        """
        keys = self.candidates(name, edit.shape)
        if not keys:
            raise InterventionError(
                f"{self.directory} holds no plain tensor {name} of shape {edit.shape}; "
                "this intervention was made for another model, or this one is "
                "quantised and takes an adapter only, see export.lora and export.gguf"
            )
        if len(keys) == 1:
            return keys[0]
        known = [key for key in keys if self._is(key, edit)]
        best = [k for k in known if shared_end(k, name) == shared_end(known[0], name)]
        if len(best) > 1:
            raise InterventionError(
                f"{self.directory} holds {name} twice, as {best[0]} and {best[1]}; "
                "take one of them out, or load the model and save it again"
            )
        return (known or keys)[0]

    def _is(self, key: str, edit: Edit) -> bool:
        return self.dtype(key) in FLOATS and edit.knows(self.read(key))

    def copied_to(self, directory: Path) -> Shards:
        """Return the same tensors in a directory that copies of the files are in."""
        copies = copy(self)
        copies.directory = directory
        return copies

    def write(self, name: str, value: Tensor) -> None:
        """Write a tensor of the same type and shape in the place of the old one."""
        place = self.places[name]
        path = self.directory / place.file
        mode = path.stat().st_mode & 0o7777
        path.chmod(mode | 0o200)
        try:
            with path.open("r+b") as stream:
                stream.seek(place.start)
                stream.write(raw_bytes(value).data)
        finally:
            path.chmod(mode)
