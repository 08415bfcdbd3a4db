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
from cintervene.intervention.edit import Edit, Form
from cintervene.intervention.hub import FILE
from cintervene.intervention.record import check_edit, check_record
from cintervene.models.weights import FLOAT_DTYPES, dtype_name
from cintervene.solvers.update import LowRankUpdate
from cintervene.utils.files import check_regular, write_atomically
from cintervene.utils.json_text import parse_json

__all__ = ["RECORD", "read", "write"]

KEY = "cintervene-intervention"
VERSION = 1
# Of a weight's shape. Factors of rank 0 take no place in a file, whatever they claim.
LARGEST = 1 << 24
# What is stored of an intervention besides its edits.
RECORD = ("model", "options", "metrics", "versions")


def write(
    path: str | os.PathLike[str], edits: Mapping[str, Edit], record: Mapping[str, Any]
) -> None:
    """Write edits and what `RECORD` names to `path`, whole or not at all.

    Raises
    ------
    OSError
        The file cannot be written; a file that was there stays as it was.
    ArgumentError
        The record holds what JSON cannot.
    """
    arrays = {
        name: np.ascontiguousarray(array) for name, array in _tensors(edits).items()
    }
    about = {**record, "edits": [_described(*item) for item in edits.items()]}
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


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Edit], dict[str, Any]]:
    """Read what `write` wrote: edits by parameter name, and the record.

    Raises
    ------
    OSError
        The file is missing or cannot be read.
    InterventionError
        It is not an intervention, comes from a later version, or is damaged.
    """
    tensors, about = _contents(path)
    try:
        edits = {one["name"]: _edit(one, tensors) for one in about["edits"]}
        if not edits:
            raise ValueError("no changed weight")
        if len(edits) < len(about["edits"]):
            raise ValueError("two changes of one weight")
        record = {key: about[key] for key in RECORD}
        check_record(record)
        return edits, record
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InterventionError(
            f"{os.fspath(path)} is not a complete intervention "
            f"({type(error).__name__}: {error})"
        ) from error


def _tensors(edits: Mapping[str, Edit]) -> dict[str, Any]:
    tensors: dict[str, Any] = {}
    for name, edit in edits.items():
        tensors[f"{name}.left"] = edit.update.left
        tensors[f"{name}.right"] = edit.update.right
        for place, form in enumerate(edit.forms):
            if form.flips is not None:
                tensors[_key(name, place)] = form.flips
    return tensors


def _key(name: str, place: int) -> str:
    """What the flips of a form are called; the first was once the only one."""
    return f"{name}.flips.{place}" if place else f"{name}.flips"


def _described(name: str, edit: Edit) -> dict[str, Any]:
    """What JSON holds of an edit."""
    return {
        "name": name,
        "layer": edit.layer,
        "transposed": edit.transposed,
        "base_norm": edit.base_norm,
        **_hashes(edit.forms[0]),
        "elsewhere": [_hashes(form) for form in edit.forms[1:]],
    }


def _hashes(form: Form) -> dict[str, Any]:
    return {
        "dtype": dtype_name(form.dtype),
        "base_sha256": form.base_sha256,
        "result_sha256": form.result_sha256,
    }


def _edit(described: Mapping[str, Any], tensors: Mapping[str, Any]) -> Edit:
    """The edit of which `_described` and `_tensors` tell."""
    check_edit(described)
    name = described["name"]
    forms = [
        _form(one, tensors.get(_key(name, place)))
        for place, one in enumerate([described, *described.get("elsewhere", [])])
    ]
    update = LowRankUpdate(tensors[f"{name}.left"], tensors[f"{name}.right"])
    if not 0 < min(update.shape) <= max(update.shape) <= LARGEST:
        raise ValueError(f"{name}: a change of shape {update.shape}")
    return Edit(
        update,
        described["layer"],
        described["transposed"],
        float(described["base_norm"]),
        tuple(forms),
    )


def _form(described: Mapping[str, Any], flips: Any) -> Form:
    """The form of which `_hashes` tells."""
    if flips is not None and (
        flips.dtype != np.uint8 or flips.ndim != 1 or not len(flips)
    ):
        raise ValueError("the difference of the bits is no row of bytes")
    dtypes = {dtype_name(dtype): dtype for dtype in FLOAT_DTYPES}
    dtype = dtypes[described["dtype"]]
    return Form(dtype, described["base_sha256"], described["result_sha256"], flips)


def _refuse_directory(path: Path) -> None:
    """Say what to give in place of a directory that is known."""
    if (path / FILE).is_file():
        raise InterventionError(f"{path} is a directory; give {path / FILE}")
    if (path / "adapter_config.json").is_file():
        raise InterventionError(
            f"{path} is an adapter for peft; give the {FILE} that it was exported "
            "from, or merge the adapter and compare the models"
        )


def _contents(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tensors and description of a file, compared with its digest."""
    where = os.fspath(path)
    _refuse_directory(Path(path))
    check_regular(Path(path))
    with Path(path).open("rb"):
        pass
    try:
        with safe_open(where, framework="numpy") as file:
            metadata = file.metadata() or {}
            if KEY not in metadata:
                raise InterventionError(
                    f"{where} does not hold an intervention; give the {FILE} of a "
                    "defence"
                )
            head = parse_json(metadata[KEY])
            if head["version"] != VERSION:
                raise InterventionError(
                    f"{where} has format version {head['version']}, expected "
                    f"{VERSION}; use the version of cintervene that wrote it"
                )
            # Not a dict: its iteration needs keys().
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        about = parse_json(head["about"])
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
