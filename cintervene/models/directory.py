# SPDX-License-Identifier: Apache-2.0
"""What lies in the directory of a model: files, links, and what has no place there."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from cintervene.errors import ModelError
from cintervene.utils.exchange import under_way
from cintervene.utils.json_text import parse_json

__all__ = ["check_config", "check_settled", "check_special", "files_to_copy"]

# A file of this size of which less than half is on the disk is none that somebody
# wrote: it would take hours to hash, and the disk to copy.
SPARSE_BYTES = 1 << 30
# Of a dimension, and of what is counted.
LARGEST = 1 << 40
LAYERS = re.compile(r"(num|n)_(hidden_|decoder_|encoder_)?layers?")
# Sizes in `os.stat` are in these.
BLOCK_BYTES = 512
KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def check_settled(directory: Path) -> None:
    """Refuse a directory in which files are just being replaced.

    Raises
    ------
    ModelError
        They are, or the process that did so was killed.
    """
    if under_way(directory):
        raise ModelError(
            f"{directory} is being changed, or was when its writer was stopped; wait "
            "for it, or repeat what wrote there, which first puts back what there was"
        )


def check_special(directory: Path) -> None:
    """Refuse pipes, sockets and devices, which readers would wait for.

    Raises
    ------
    ModelError
        The directory holds one, itself or through a link.
    """
    for path in directory.iterdir():
        try:
            kind = stat.S_IFMT(path.stat().st_mode)
        except OSError:
            continue
        if kind in KINDS:
            raise ModelError(
                f"{path} is {KINDS[kind]}, which has no place among the files of a "
                "model; remove it"
            )


def check_config(directory: Path) -> None:
    """Refuse a configuration of a model that is far larger than what is stored.

    Building it would take hours before the first missing weight is noticed.

    Raises
    ------
    ModelError
        It has more layers than there are tensors, or is no JSON.
    """
    path = directory / "config.json"
    try:
        config = parse_json(path.read_bytes())
        tensors = sum(map(_tensors, directory.glob("*.safetensors")))
    except ValueError as error:
        raise ModelError(f"{path} is damaged ({error}); get it again") from error
    for name, count in _counts(config):
        layers = LAYERS.fullmatch(name) is not None
        if count > LARGEST or 0 < tensors < count * layers:
            raise ModelError(
                f"{path} has {name} {count:,}, and {tensors:,} tensors are stored; get "
                "a whole copy"
            )


def _tensors(path: Path) -> int:
    """How many tensors the header of a file names; 0 where it cannot be read."""
    try:
        with safe_open(path, framework="numpy") as file:
            return len(file.keys())
    except (SafetensorError, OSError):
        return 0


def _counts(config: Any) -> Iterator[tuple[str, int]]:
    """Whole numbers of a configuration, those of its parts too."""
    for name, value in config.items() if isinstance(config, dict) else ():
        if type(value) is int:
            yield name, value
        yield from _counts(value)


def files_to_copy(
    directory: Path, wanted: Callable[[Path], bool]
) -> Iterator[tuple[Path, Path]]:
    """Find the files of a directory that a copy of it is to have.

    Links are followed if they stay in the directory or, in a snapshot of a hub's cache,
    lead to the blobs beside the snapshots.

    Parameters
    ----------
    directory : Path
    wanted : callable
        Tells of a path relative to `directory` whether a file of that name is wanted.
        Names that begin with a dot never are.

    Yields
    ------
    (Path, Path)
        The path relative to `directory`, and the file that holds the contents.

    Raises
    ------
    ModelError
        A link leads elsewhere, nowhere or round in a circle, or there are pipes,
        devices, or files that are mostly holes.
    """
    yield from _Walk(directory, wanted).files(Path(), linked=False)


class _Walk:
    """A directory on its way through."""

    def __init__(self, directory: Path, wanted: Callable[[Path], bool]) -> None:
        self.directory = directory
        self.wanted = wanted
        real = directory.resolve()
        self.roots = [real]
        if real.parent.name == "snapshots":
            self.roots.append(real.parent.parent / "blobs")

    def files(self, inner: Path, linked: bool) -> Iterator[tuple[Path, Path]]:
        """Files below `inner`; `linked` if a link to a directory led there."""
        for entry in sorted((self.directory / inner).iterdir()):
            path = inner / entry.name
            if entry.name.startswith("."):
                continue
            kind = self.kind(path)
            if kind == stat.S_IFDIR:
                if entry.is_symlink():
                    self.check_turn(path, linked)
                yield from self.files(path, linked or entry.is_symlink())
            elif self.wanted(path):
                yield path, self.target(path)

    def kind(self, path: Path) -> int:
        """What is there, behind links; links that lead nowhere count as files."""
        try:
            return stat.S_IFMT((self.directory / path).stat().st_mode)
        except OSError:
            return stat.S_IFREG

    def target(self, path: Path) -> Path:
        """The file whose contents are copied."""
        place = self.directory / path
        try:
            real = place.resolve(strict=True)
            found = real.stat()
        except (OSError, RuntimeError) as error:
            raise ModelError(
                f"{place} is a link that leads nowhere; remove it"
            ) from error
        kind = stat.S_IFMT(found.st_mode)
        if kind in KINDS:
            raise ModelError(f"{place} is {KINDS[kind]}; remove it")
        if not any(real.is_relative_to(root) for root in self.roots):
            raise ModelError(
                f"{place} is a link to {real}, outside of the directory; what it leads "
                "to is not published unasked, so copy the file there or remove the link"
            )
        if found.st_size >= SPARSE_BYTES > 2 * BLOCK_BYTES * found.st_blocks:
            raise ModelError(
                f"{place} has {found.st_size:,} bytes, nearly all of them holes; "
                "remove it"
            )
        return real

    def check_turn(self, path: Path, linked: bool) -> None:
        """Refuse links to directories outside, in circles, and behind one another."""
        place = self.directory / path
        real, here = place.resolve(), place.parent.resolve()
        if here.is_relative_to(real) or linked:
            raise ModelError(
                f"{place} is a link to a directory that leads round in a circle, or "
                "lies behind another such link; remove it"
            )
        if not any(real.is_relative_to(root) for root in self.roots):
            raise ModelError(
                f"{place} is a link to {real}, outside of the directory; "
                "copy what is there or remove the link"
            )
