# SPDX-License-Identifier: Apache-2.0
"""Files that are on the disk when their writer says so."""

import errno
import os
import stat
from pathlib import Path

from cintervene.errors import ArgumentError
from cintervene.utils.unfinished import hidden_prefix, make_file, tidy_files

__all__ = ["check_regular", "sync", "sync_tree", "write_atomically"]


def sync(path: Path) -> None:
    """Wait until a file, or a directory's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(directory: Path) -> None:
    """Wait until a directory and all that is in it is on the disk."""
    for path in directory.rglob("*"):
        if not path.is_symlink() and (path.is_file() or path.is_dir()):
            sync(path)
    sync(directory)


def check_regular(path: Path) -> None:
    """Refuse what cannot be read twice, or never ends: pipes, devices, sockets.

    Raises
    ------
    OSError
        It is none, or there is nothing.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file beside its place, through to the disk, and rename it into place.

    A link stays and what it leads to is replaced. What is replaced hands its rights on.
    Whatever a killed process left beside the place is removed.

    Raises
    ------
    OSError
        It cannot be written; what was there stays as it was.
    ArgumentError
        What is there is no file, but a device, a pipe or the like.
    """
    place = Path(os.path.realpath(path))
    mode = _mode(place)
    prefix = hidden_prefix(place.name)
    tidy_files(place.parent, prefix)
    temporary, descriptor = make_file(place.parent, prefix)
    try:
        # Renamed before it is closed, and with that unlocked.
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            if mode is not None:
                os.fchmod(descriptor, mode)
            os.fsync(descriptor)
            temporary.replace(place)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(place.parent)


def _mode(place: Path) -> int | None:
    """The rights of the file that is there; None where nothing is."""
    try:
        mode = place.lstat().st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(mode):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.fspath(place))
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(
            errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(place)
        )
    if not stat.S_ISREG(mode):
        raise ArgumentError(f"path: {place} is no file; give another name")
    return stat.S_IMODE(mode)
