# SPDX-License-Identifier: Apache-2.0
"""Interventions on saved models: the bytes of the changed weights, and no others.

A directory as written by `save_pretrained` is copied file by file, and only the weights
that the intervention changes are written anew, where they lie in their safetensors
files. So metadata, tied weights and mixed types stay as they are, no model is loaded,
one weight at a time is in memory, and taking the change back gives the same files.
"""

from __future__ import annotations

import errno
import math
import os
import shutil
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from cintervene.errors import ArgumentError, InterventionError
from cintervene.export.artefact import Artefact
from cintervene.export.cards.card import (
    CARD,
    Origin,
    Report,
    front_matter,
    inherited,
    reported,
    write_card,
)
from cintervene.export.checkpoint.intervention import CheckpointIntervention
from cintervene.export.checkpoint.shards import FLOATS, Shards
from cintervene.intervention.acceptance import check_limits
from cintervene.intervention.application import Applied
from cintervene.intervention.edit import Edit
from cintervene.intervention.intervention import Intervention
from cintervene.models.directory import files_to_copy
from cintervene.models.weights import same_bits, sha256
from cintervene.utils.exchange import StagedFiles, put_back
from cintervene.utils.progress import Progress, counting, silent
from cintervene.utils.staging import StagedDirectory

__all__ = [
    "apply_to_directory", "revert_directory", "save_checkpoint", "write_checkpoint",
]  # fmt: skip

# Other forms of the weights: copied, they would hand on the unchanged model.
WEIGHTS = (
    ".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".h5", ".msgpack", ".onnx",
)  # fmt: skip
Change = Callable[[str, Edit, Tensor], Tensor]
# Rows are widened to float64 this many elements at a time.
BLOCK = 1 << 20
# What the card of the base is called beside that of the changed model.
BASE_CARD = "BASE_README.md"


def save_checkpoint(
    intervention: Intervention,
    source: str | os.PathLike[str],
    directory: str | os.PathLike[str],
    *,
    report: Report | None = None,
    beyond_limits: bool = False,
    progress: Progress = silent,
) -> Artefact:
    """Write a changed copy of a saved model, with a model card, whole or not at all.

    Parameters
    ----------
    intervention : Intervention
    source : path
        Directory of the model, with safetensors files. It is not changed.
    directory : path
        Must not exist, or be an empty directory.
    report : mapping or callable, optional
        For the model card; see `Origin`. A function is called with the change as the
        files hold it, and returns the report.
    beyond_limits : bool, default False
        Write it even if it crossed its limits; see `Intervention.save`.
    progress : callable, optional
        Called as it goes; see `Progress`.

    Returns
    -------
    Artefact
        Its errors are those of the rounding to the types that the model is stored in.

    Raises
    ------
    ArgumentError
        `directory` is not empty.
    InterventionError
        As `Intervention.apply`, or it crossed its limits and `beyond_limits` is False.
    ModelError
        The model is damaged or stored in another way.
    OSError
        A file cannot be read or written.
    """
    place = Path(directory)
    with StagedDirectory(place) as stage:
        artefact = write_checkpoint(
            intervention, Path(source), stage.path, report,
            beyond_limits=beyond_limits, progress=progress,
        )  # fmt: skip
        stage.commit()
    return replace(artefact, path=place)


def write_checkpoint(
    intervention: Intervention,
    source: Path,
    target: Path,
    report: Report | None = None,
    base: str = "",
    *,
    beyond_limits: bool = False,
    progress: Progress = silent,
) -> Artefact:
    """Write what `save_checkpoint` does into an existing directory."""
    applied = apply_to_directory(
        intervention, source, target, beyond_limits=beyond_limits, progress=progress
    )
    card = target / CARD
    front = inherited(card)
    if card.exists():
        card.rename(target / BASE_CARD)
    errors = _errors(intervention, Shards(source), Shards(target))
    content = reported(report, lambda: CheckpointIntervention(intervention, target))
    origin = Origin("checkpoint", base, content, errors, front)
    write_card(intervention, target, origin)
    rank = max(update.rank for update in intervention.updates.values())
    return Artefact(target, rank, errors, applied.unchanged)


def apply_to_directory(
    intervention: Intervention,
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    beyond_limits: bool = False,
    progress: Progress = silent,
) -> Applied:
    """Write the changed copy of a saved model.

    Parameters
    ----------
    intervention : Intervention
    source : path
        Directory of the model, with safetensors files.
    target : path
        Existing directory to write to, whose files of the same names are replaced, all
        together or not at all. It may be `source`. Other forms of the weights and
        hidden files are not copied.
    beyond_limits : bool, default False
        Write it even if it crossed its limits; see `Intervention.save`.
    progress : callable, optional
        Called as it goes; see `Progress`.

    Raises
    ------
    InterventionError
        As `Intervention.apply`, or it crossed its limits and `beyond_limits` is False;
        nothing is written then.
    ModelError
        The model is damaged or stored in another way, or holds links to files that are
        not its own.
    ArgumentError
        `target` holds other weights than these, or another process writes to it.
    OSError
        A file cannot be read or written; `target` is as it was.
    """
    check_limits(intervention, beyond_limits)
    same = _rewrite(intervention, Path(source), Path(target), _changed, progress)
    return Applied([n for n in intervention.edits if n not in same], sorted(same))


def revert_directory(
    intervention: Intervention,
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    progress: Progress = silent,
) -> None:
    """Write the copy of a changed model as it was before, bit by bit.

    Parameters and errors are those of `apply_to_directory`, but for `beyond_limits`:
    the model as it was is never refused.

    Raises
    ------
    InterventionError
        As `Intervention.revert`; nothing is written then.
    """
    _rewrite(
        intervention, Path(source), Path(target), _recovered, progress,
        lambda staged: _take_back_cards(intervention, staged, Path(target)),
    )  # fmt: skip


def _take_back_cards(
    intervention: Intervention, staged: Path, target: Path
) -> Sequence[str]:
    """Undo what `write_checkpoint` did to cards; name the file that has to go."""
    card, base = (
        next(
            (place / name for place in (staged, target) if (place / name).is_file()),
            None,
        )
        for name in (CARD, BASE_CARD)
    )
    made = "" if card is None else front_matter(card).get("cintervene", "")
    if intervention.digest not in made:
        return ()
    before = None if base is None else base.read_bytes()
    for name in (CARD, BASE_CARD):
        (staged / name).unlink(missing_ok=True)
    if before is None:
        return (CARD,)
    (staged / CARD).write_bytes(before)
    return (BASE_CARD,)


def _changed(name: str, edit: Edit, weight: Tensor) -> Tensor:
    return edit.changed(name, weight, edit.check_base(name, weight))


def _recovered(name: str, edit: Edit, weight: Tensor) -> Tensor:
    return edit.recover(name, weight)


def _rewrite(
    intervention: Intervention,
    source: Path,
    target: Path,
    change: Change,
    progress: Progress,
    finish: Callable[[Path], Sequence[str]] = lambda staged: (),
) -> set[str]:
    """Change a copy of a model; return the names of weights that stayed the same.

    `finish` is called with the directory of the new files before they are put in place,
    and names files to be taken away.
    """
    put_back(target)
    shards = Shards(source)
    keys = {name: shards.find(name, edit) for name, edit in intervention.edits.items()}
    if len(set(keys.values())) < len(keys):
        raise InterventionError(f"{source}: two of the weights are one tensor there")
    # Once without writing: a failure must not come after hours of copying.
    report = counting(progress, "checking weights", len(keys))
    same = set()
    for name, edit in intervention.edits.items():
        if same_bits(*_before_and_after(shards, keys[name], name, edit, change)):
            same.add(name)
        report(1)
    if len(same) == len(keys):
        raise InterventionError(
            "nothing was changed: every change is lost in the rounding to the types of "
            f"{source}; scale the intervention up"
        )
    if source.samefile(target):
        changed = {shards.places[key].file for key in keys.values()}
        files = [(Path(name), source / name) for name in sorted(changed)]
    else:
        _check_weights(target, shards.files)
        files = list(files_to_copy(source, partial(_belongs, shards.files)))
    with StagedFiles(target) as stage:
        _copy(files, stage.path, progress)
        written = shards.copied_to(stage.path)
        report = counting(progress, "changing weights", len(keys))
        for name, edit in intervention.edits.items():
            _write(written, keys[name], name, edit, change)
            report(1)
        stage.commit(finish(stage.path))
    return same


def _write(shards: Shards, key: str, name: str, edit: Edit, change: Change) -> None:
    after = _before_and_after(shards, key, name, edit, change)[1]
    shards.write(key, after)
    if sha256(shards.read(key)) != sha256(after):
        raise OSError(f"{name} was not stored as it was written; check the disk")


def _before_and_after(
    shards: Shards, key: str, name: str, edit: Edit, change: Change
) -> tuple[Tensor, Tensor]:
    if shards.dtype(key) not in FLOATS or shards.shape(key) != edit.shape:
        raise InterventionError(
            f"{name} is {shards.shape(key)} of {shards.dtype(key)} in "
            f"{shards.directory}, expected {edit.shape} of a floating-point type; this "
            "intervention was made for another model, or this one is quantised and "
            "takes an adapter only, see export.lora and export.gguf"
        )
    before = shards.read(key)
    return before, change(name, edit, before)


def _errors(
    intervention: Intervention, before: Shards, after: Shards
) -> dict[str, float]:
    """Rounding of each change, relative to its norm."""
    errors = {}
    for name, edit in intervention.edits.items():
        key = before.find(name, edit)
        errors[name] = _rounding(edit, before.read(key), after.read(key))
    return errors


def _rounding(edit: Edit, before: Tensor, after: Tensor) -> float:
    """Frobenius norm of (stored change - exact change), over that of the exact one."""
    update = edit.update.T if edit.transposed else edit.update
    count = max(1, BLOCK // max(1, before.shape[1]))
    error = norm = 0.0
    for start in range(0, len(before), count):
        rows = slice(start, start + count)
        exact = torch.from_numpy(update.left[rows] @ update.right).double()
        norm += float(exact.square().sum())
        stored = after[rows].double() - before[rows].double()
        error += float((stored - exact).square().sum())
    return math.sqrt(error / norm) if norm else 0.0


def _copy(files: Sequence[tuple[Path, Path]], target: Path, progress: Progress) -> None:
    """Copy files with their rights to the names they are to have below `target`."""
    sizes = [file.stat().st_size for _, file in files]
    needed = sum(sizes)
    if needed > shutil.disk_usage(target).free:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(target))
    report = counting(progress, "copying files", needed)
    for (name, file), size in zip(files, sizes, strict=True):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target / name)
        shutil.copymode(file, target / name)
        report(size)


def _belongs(weights: Collection[str], path: Path) -> bool:
    """Tell whether a file, named from the model's directory, is part of a copy.

    It is one of the weights that were read, or neither weights nor an index of them.
    """
    return str(path) in weights or not _is_weights(path.name)


def _is_weights(name: str) -> bool:
    return name.lower().removesuffix(".index.json").endswith(WEIGHTS)


def _check_weights(target: Path, weights: Collection[str]) -> None:
    """Refuse to write beside other weights, which might be read in place of these."""
    others = (p.name for p in sorted(target.iterdir()) if not p.name.startswith("."))
    other = next((n for n in others if _is_weights(n) and n not in weights), None)
    if other is not None:
        raise ArgumentError(
            f"target: {target} holds {other}, which is not of this model; give an "
            "empty directory"
        )
