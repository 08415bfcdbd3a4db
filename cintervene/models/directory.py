# SPDX-License-Identifier: Apache-2.0
"""What lies in the directory of a model: files, links, and what has no place there."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from cintervene.errors import ModelError
from cintervene.utils.exchange import under_way

__all__ = ["check_settled", "check_special", "files_to_copy"]

# A file of this size of which less than half is on the disk is none that somebody
# wrote: it would take hours to hash, and the disk to copy.
SPARSE_BYTES = 1 << 30
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
        if stat.S_IFMT(found.st_mode) in KINDS:
            raise ModelError(f"{place} is {KINDS[stat.S_IFMT(found.st_mode)]}; remove it")
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
