# SPDX-License-Identifier: Apache-2.0
"""A directory of results that appears whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from cintervene.errors import ArgumentError
from cintervene.utils.exchange import HIDDEN, StagedFiles, put_back, under_way
from cintervene.utils.files import sync, sync_tree
from cintervene.utils.signals import uninterrupted
from cintervene.utils.unfinished import (
    hidden_prefix,
    is_unfinished,
    make_directory,
    tidy_directories,
)

__all__ = [
    "StagedDirectory",
    "check_above",
    "check_place",
    "try_place",
    "try_writing",
]

# Written and removed before the work begins, so that a full disk shows at once.
PROBE_BYTES = 1 << 20


class StagedDirectory:
    """Collects files in a hidden directory and moves them to their place at the end.

    The hidden directory is on the same disk: beside the place, or inside it where
    nothing can be put beside it. `commit` moves the files; without it they are removed
    when the `with` block ends, even after an error. What a killed process left behind
    is removed by the next one that writes to the same place.

    Parameters
    ----------
    out : Path
        Directory for the files. Must not exist, or be empty. A link to an empty
        directory stays one.

    Attributes
    ----------
    path : Path
        Where to write them.
    """

    def __init__(self, out: Path) -> None:
        self.place = Path(out)
        self.path = Path()
        self._real = Path()
        self._parents: list[Path] = []
        self._inside: StagedFiles | None = None
        self._lock: int | None = None

    def __enter__(self) -> StagedDirectory:
        with uninterrupted():
            self._tidy()
            exists = check_place(self.place)
            self._real = Path(os.path.realpath(self.place))
            try:
                if exists and not _replaceable(self._real):
                    self._inside = StagedFiles(self._real).__enter__()
                    self.path = self._inside.path
                else:
                    self._make_parents()
                    prefix = hidden_prefix(self._real.name)
                    self.path, self._lock = make_directory(self._real.parent, prefix)
                self._probe()
            except BaseException:
                self._discard()
                raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._discard()

    def commit(self) -> None:
        """Write everything through to the disk and move it into place.

        Raises
        ------
        OSError
            That was not possible; nothing is in the place then.
        """
        sync_tree(self.path)
        with uninterrupted():
            if self._inside is not None:
                self._check_empty()
                self._inside.commit()
            else:
                if self._real.exists():
                    self.path.chmod(self._real.stat().st_mode & 0o7777)
                # An empty directory is replaced in the same step.
                self.path.rename(self._real)
                self._parents = []
            sync(self._real.parent)

    def _tidy(self) -> None:
        """Remove what killed processes left, and take back what they moved."""
        real = Path(os.path.realpath(self.place))
        if real.is_dir():
            put_back(real)
        tidy_directories(real.parent, hidden_prefix(real.name))

    def _make_parents(self) -> None:
        """Make the directories above the place, and remember which."""
        missing = [path for path in self._real.parents if not path.exists()]
        for path in reversed(missing):
            path.mkdir(exist_ok=True)
            self._parents.insert(0, path)
            sync(path.parent)

    def _check_empty(self) -> None:
        """Notice what another process put there, as renaming onto it would."""
        if any(not is_unfinished(path, HIDDEN) for path in self._real.iterdir()):
            raise OSError(
                errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), os.fspath(self.place)
            )

    def _probe(self) -> None:
        probe = self.path / "probe"
        with probe.open("wb") as stream:
            stream.write(bytes(PROBE_BYTES))
            stream.flush()
            os.fsync(stream.fileno())
        probe.unlink()

    def _discard(self) -> None:
        with uninterrupted():
            if self._inside is not None:
                self._inside.discard()
            elif self.path != Path():
                shutil.rmtree(self.path, ignore_errors=True)
            for parent in self._parents:
                with suppress(OSError):
                    parent.rmdir()
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None


def check_place(out: Path) -> bool:
    """Tell whether a directory for results exists already.

    Raises
    ------
    ArgumentError
        It is not empty, or it is a file or below one.
    OSError
        It cannot be read.
    """
    if not out.is_dir():
        if out.exists() or out.is_symlink():
            raise ArgumentError(f"out: {out} is not a directory; give another name")
        check_above(out)
        return False
    held = (path for path in out.iterdir() if not is_unfinished(path, HIDDEN))
    first = None if under_way(out) else next(held, None)
    if first is not None:
        raise ArgumentError(
            f"out: {out} is not empty (it holds {first.name}); give a new directory"
        )
    return True


def check_above(out: Path) -> None:
    """Refuse a place that is below a file.

    Raises
    ------
    ArgumentError
        It is.
    """
    above = _nearest(Path(os.path.realpath(out)))
    if not above.is_dir():
        raise ArgumentError(
            f"out: got {out}, expected a place in a directory, which {above} is not; "
            "give another name"
        )


def try_place(out: Path) -> None:
    """Refuse a place that a `StagedDirectory` could not be made at.

    Raises
    ------
    ArgumentError
        See `check_place`.
    OSError
        Nothing can be written there.
    """
    exists = check_place(out)
    real = Path(os.path.realpath(out))
    _try_in(real if exists and not _replaceable(real) else real.parent, real.name)


def try_writing(directory: Path) -> None:
    """Refuse a directory, which need not exist yet, in which no file could be made.

    Raises
    ------
    OSError
        Nothing can be written there.
    """
    real = Path(os.path.realpath(directory))
    _try_in(real if real.is_dir() else real.parent, real.name)


def _try_in(directory: Path, name: str) -> None:
    """Make an empty hidden directory in one, or above it, and remove it again."""
    path, lock = make_directory(_nearest(directory), hidden_prefix(name))
    path.rmdir()
    if lock is not None:
        os.close(lock)


def _nearest(path: Path) -> Path:
    """The path, or the nearest one above it that exists."""
    return next(one for one in (path, *path.parents) if one.exists())


def _replaceable(place: Path) -> bool:
    """Tell whether another directory can be renamed onto an existing, empty one."""
    return (
        not place.is_mount()
        and _mount_id(place) == _mount_id(place.parent)
        and not place.samefile(".")
        and os.access(place.parent, os.W_OK)
    )


def _mount_id(directory: Path) -> str | None:
    """The kernel's number of the mount; None where it does not tell.

    A directory of a disk that is mounted a second time on that disk is a mount point
    that nothing else shows.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text("ascii").splitlines()
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return next((line for line in lines if line.startswith("mnt_id:")), None)
