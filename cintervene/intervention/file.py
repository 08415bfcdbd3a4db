# SPDX-License-Identifier: Apache-2.0
"""The file of an intervention: safetensors with a JSON description and a digest."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from cintervene.errors import ArgumentError, InterventionError
from cintervene.utils.files import write_atomically

KEY = "cintervene-intervention"
VERSION = 1


def write(
    path: str | os.PathLike[str], tensors: Mapping[str, Any], about: Mapping[str, Any]
) -> None:
    """Write tensors and description to `path`, whole or not at all.

    Raises
    ------
    OSError
        The file cannot be written; a file that was there stays as it was.
    ArgumentError
        The description holds what JSON cannot.
    """
    arrays = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    try:
        text = json.dumps(about, default=_plain, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise ArgumentError(
            f"options, metrics: cannot be stored as JSON ({error}); use numbers, "
            "strings, lists and dicts"
        ) from error
    # One key, because safetensors writes several in no fixed order.
    head = {"version": VERSION, "sha256": _digest(arrays, text), "about": text}
    metadata = {KEY: json.dumps(head)}
    write_atomically(Path(path), save(arrays, metadata))


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read tensors and description from `path`.

    Raises
    ------
    OSError
        The file is missing or cannot be read.
    InterventionError
        It is not an intervention, comes from a later version, or is damaged.
    """
    where = os.fspath(path)
    with Path(path).open("rb"):
        pass
    try:
        with safe_open(where, framework="numpy") as file:
            metadata = file.metadata() or {}
            if KEY not in metadata:
                raise InterventionError(f"{where} does not hold an intervention")
            head = json.loads(metadata[KEY])
            if head["version"] != VERSION:
                raise InterventionError(
                    f"{where} has format version {head['version']}, expected "
                    f"{VERSION}; use the version of cintervene that wrote it"
                )
            # Not a dict: its iteration needs keys().
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        about = json.loads(head["about"])
        whole = head["sha256"] == _digest(tensors, head["about"])
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise InterventionError(
            f"{where} cannot be read as an intervention ({error}); it is damaged or "
            "something else"
        ) from error
    if not whole:
        raise InterventionError(
            f"{where} is damaged: its contents do not match their sha256; get it again"
        )
    return tensors, about


def _digest(tensors: Mapping[str, Any], text: str) -> str:
    state = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        array = tensors[name]
        state.update(f"{name} {array.dtype.str} {array.shape}".encode())
        state.update(array.tobytes())
    return state.hexdigest()


def _plain(value: Any) -> Any:
    """Turn NumPy numbers and arrays into what JSON knows."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON")
