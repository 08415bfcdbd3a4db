# SPDX-License-Identifier: Apache-2.0
"""Files of a directory that are replaced all together or not at all.

Several names cannot change in one step, so readers and the next writer have to be able
to tell. New files are collected in a hidden directory inside. To put them in place, a
list of them is stored there first. Then everything that they replace is moved aside,
what readers begin with (`ENTRIES`) before the rest, and new files are moved in, with
that at the end: between the two, readers find nothing to begin with, never old and new
files together. Once the list is removed the new files stand. Whoever finds the list of
a process that was killed moves everything back.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from cintervene.errors import ArgumentError
from cintervene.utils.files import sync, sync_tree
from cintervene.utils.json_text import parse_json
from cintervene.utils.signals import uninterrupted
from cintervene.utils.unfinished import is_unfinished, left_behind, make_directory

__all__ = ["StagedFiles", "put_back", "under_way", "write_together"]

HIDDEN = "."
NEW, OLD, MOVES = "new", "old", "moves.json"
# How names end of what readers of models and adapters begin with.
ENTRIES = ("config.json", ".index.json")


class StagedFiles:
    """Collects files for an existing directory, and replaces those there by them.

    Parameters
    ----------
    directory : Path

    Attributes
    ----------
    path : Path
        Where to write the new files, in directories as they are to be.

    Raises
    ------
    ArgumentError
        Another process is writing there.
    OSError
        Nothing can be written there.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = Path(directory)
        self.path = Path()
        self._hidden = Path()
        self._lock: int | None = None

    def __enter__(self) -> StagedFiles:
        with uninterrupted():
            put_back(self.directory)
            if under_way(self.directory):
                raise ArgumentError(
                    f"{self.directory}: another process is writing there; wait for it, "
                    "or give another directory"
                )
            self._hidden, self._lock = make_directory(self.directory, HIDDEN)
            self.path = self._hidden / NEW
        try:
            self.path.mkdir()
        except BaseException:
            self.discard()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.discard()

    def commit(self, removed: Collection[str] = ()) -> None:
        """Put the files in place, and take away those named in `removed`.

        Raises
        ------
        OSError
            That was not possible; what was there is put back.
        """
        sync_tree(self._hidden)
        names = list(_files(self.path))
        _check_inside(self.directory, [*names, *removed])
        with uninterrupted():
            if len(names) == 1 and not removed:
                _move(names[0], self.path, self.directory)
                sync(self.directory)
                return
            try:
                _begin(self._hidden, self.path, names)
                _exchange(self._hidden, self.directory, names, removed)
                (self._hidden / MOVES).unlink()
            except BaseException:
                _undo(self._hidden, self.directory)
                raise

    def discard(self) -> None:
        """Remove what is hidden; for when there is no `with` block."""
        with uninterrupted():
            # Only a list that could not be followed back is left, for the next writer.
            if not (self._hidden / MOVES).exists():
                shutil.rmtree(self._hidden, ignore_errors=True)
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None


def write_together(directory: Path, files: Mapping[str, bytes]) -> None:
    """Write files, by name, and replace those of the same names all together.

    Raises
    ------
    OSError
        They cannot be written; what was there is put back.
    ArgumentError
        Another process is writing there.
    """
    with StagedFiles(directory) as stage:
        for name, content in files.items():
            place = stage.path / name
            place.parent.mkdir(exist_ok=True)
            place.write_bytes(content)
        stage.commit()


def under_way(directory: Path) -> bool:
    """Tell whether files are being replaced there, or were when the writer was killed.

    What is in the directory then is to be taken for nothing.
    """
    try:
        hidden = [path for path in directory.iterdir() if is_unfinished(path, HIDDEN)]
    except OSError:
        return False
    return any((path / MOVES).exists() for path in hidden)


def put_back(directory: Path) -> None:
    """Undo what a killed process began in a directory, and remove what it left.

    Raises
    ------
    OSError
        That was not possible.
    """
    for hidden in left_behind(directory, HIDDEN):
        _undo(hidden, directory)
        shutil.rmtree(hidden, ignore_errors=True)


def _check_inside(directory: Path, names: Iterable[str]) -> None:
    """Refuse to write through links, which may lead anywhere."""
    for name in names:
        for parent in Path(name).parents[:-1]:
            if (directory / parent).is_symlink():
                raise ArgumentError(
                    f"{directory / parent}: is a link, and nothing is written through "
                    "one; give another directory"
                )


def _begin(hidden: Path, new: Path, names: Iterable[str]) -> None:
    """Store which files will be moved in, by what tells them from any others."""
    (hidden / OLD).mkdir()
    moves = {name: _identity(new / name) for name in names}
    written = hidden / f"{MOVES}.new"
    written.write_text(json.dumps(moves), "utf-8")
    sync(written)
    written.rename(hidden / MOVES)
    sync(hidden)


def _exchange(
    hidden: Path, directory: Path, names: Iterable[str], removed: Collection[str]
) -> None:
    entries = [path.name for path in directory.iterdir() if _is_entry(path.name)]
    leaving = dict.fromkeys([*entries, *names, *removed])
    for name in leaving:
        if os.path.lexists(directory / name):
            _move(name, directory, hidden / OLD)
    sync_tree(hidden / OLD)
    sync(directory)
    ordered = sorted(names, key=_is_entry)
    for name in ordered:
        if not _is_entry(name):
            _move(name, hidden / NEW, directory)
    sync(directory)
    for name in ordered:
        if _is_entry(name):
            _move(name, hidden / NEW, directory)
    for name in entries:
        if name not in names and name not in removed:
            _move(name, hidden / OLD, directory)
    sync(directory)


def _undo(hidden: Path, directory: Path) -> None:
    """Move new files out and old ones in; nothing where nothing was moved."""
    if not (hidden / MOVES).exists():
        return
    moves = _moves(hidden)
    # A file keeps its identity when it is moved, and nobody else can have it meanwhile.
    for name in sorted(moves, key=_is_entry, reverse=True):
        if _identity(directory / name) == moves[name]:
            _move(name, directory, hidden / NEW)
    for name in sorted(_files(hidden / OLD), key=_is_entry):
        _move(name, hidden / OLD, directory)
    for name in moves:
        for parent in Path(name).parents[:-1]:
            # Those that were made for the new files are empty now.
            with suppress(OSError):
                (directory / parent).rmdir()
    sync(directory)
    (hidden / MOVES).unlink()


def _moves(hidden: Path) -> dict[str, list[int]]:
    """Read the list of files that were to be moved in.

    Raises
    ------
    ArgumentError
        It is damaged, or somebody else's: it leads out of the directory.
    """
    try:
        moves = parse_json((hidden / MOVES).read_text("utf-8"))
        inside = all(
            not Path(name).is_absolute() and ".." not in Path(name).parts
            for name in moves
        )
    except (ValueError, TypeError):
        inside = False
    linked = any((hidden / name).is_symlink() for name in (NEW, OLD, MOVES))
    if not inside or linked or not isinstance(moves, dict):
        raise ArgumentError(
            f"{hidden / MOVES}: is no list of files that were being replaced; remove "
            "that directory"
        )
    return moves


def _files(directory: Path) -> Iterator[str]:
    """Names of the files in a directory and those below, relative to it."""
    for path in sorted(directory.rglob("*")):
        if path.is_symlink() or not path.is_dir():
            yield str(path.relative_to(directory))


def _move(name: str, source: Path, target: Path) -> None:
    (target / name).parent.mkdir(parents=True, exist_ok=True)
    (source / name).rename(target / name)


def _is_entry(name: str) -> bool:
    return name.endswith(ENTRIES)


def _identity(path: Path) -> list[int] | None:
    """What a file is known by, wherever it is moved on its disk; None without one."""
    try:
        found = path.lstat()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        raise
    return [found.st_ino, found.st_size, found.st_mtime_ns]
