# SPDX-License-Identifier: Apache-2.0
"""A directory of results that appears whole or not at all."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from cintervene.errors import ArgumentError
from cintervene.utils.files import sync

# Written and removed before the work begins, so that a full disk shows at once.
PROBE_BYTES = 1 << 20
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ENDING = ".unfinished"
# What `tempfile` puts between prefix and suffix.
MIDDLE = "[a-z0-9_]{8}"


class StagedDirectory:
    """Collects files in a hidden directory and moves them to their place at the end.

    The hidden directory is on the same disk: beside the place, or inside it where
    nothing can be put beside it. `commit` moves the files; without it they are removed
    when the `with` block ends, even after an error. What a killed process left behind
    is removed by the next one that writes to the same place.

    Parameters
    ----------
    out : Path
        Directory for the files. Must not exist, or be empty.

    Attributes
    ----------
    path : Path
        Where to write them.
    """

    def __init__(self, out: Path) -> None:
        self.place = Path(out)
        self.path = Path()
        self._inside = False
        self._lock: int | None = None

    def __enter__(self) -> StagedDirectory:
        exists = check_place(self.place)
        ancestors = self.place.absolute().parents
        beside = next(path for path in ancestors if path.exists())
        prefix = f".{self.place.absolute().name}-"
        self._inside = exists and not _replaceable(self.place)
        places = [(beside, prefix), *([(self.place, ".")] if exists else [])]
        with uninterrupted():
            for parent, begins in places:
                _tidy(parent, begins)
            self.path, self._lock = _make(*places[-1 if self._inside else 0])
        try:
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
        """Write everything through to the disk and move it into place."""
        for file in self.path.rglob("*"):
            sync(file)
        sync(self.path)
        with uninterrupted():
            if self._inside:
                for file in self.path.iterdir():
                    file.rename(self.place / file.name)
                sync(self.place)
            else:
                self.path.chmod(_mode(self.place))
                self.place.parent.mkdir(parents=True, exist_ok=True)
                # An empty directory is replaced in the same step.
                self.path.rename(self.place)
            sync(self.place.parent)

    def _probe(self) -> None:
        probe = self.path / "probe"
        with probe.open("wb") as stream:
            stream.write(bytes(PROBE_BYTES))
            stream.flush()
            os.fsync(stream.fileno())
        probe.unlink()

    def _discard(self) -> None:
        with uninterrupted():
            shutil.rmtree(self.path, ignore_errors=True)
            if self._lock is not None:
                os.close(self._lock)


def check_place(out: Path) -> bool:
    """Tell whether a directory for results exists already.

    Raises
    ------
    ArgumentError
        It is not empty, or it is a file.
    OSError
        It cannot be read.
    """
    if not out.is_dir():
        if out.exists() or out.is_symlink():
            raise ArgumentError(f"out: {out} is not a directory; give another name")
        return False
    held = (path for path in out.iterdir() if not _unfinished(path, "."))
    first = next(held, None)
    if first is not None:
        raise ArgumentError(
            f"out: {out} is not empty (it holds {first.name}); give a new directory"
        )
    return True


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold back Ctrl-C and requests to end until the `with` block is done.

    Masks would not do: threads of other libraries take the signals then.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: caught.append(number))
        for number in ENDINGS
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if caught:
            signal.raise_signal(caught[0])


def _replaceable(place: Path) -> bool:
    """Tell whether another directory can be renamed onto an existing, empty one."""
    return (
        not place.is_symlink()
        and not place.is_mount()
        and not place.samefile(".")
        and os.access(place.absolute().parent, os.W_OK)
    )


def _make(parent: Path, prefix: str) -> tuple[Path, int | None]:
    """Make a directory that is locked for as long as its maker lives."""
    while True:
        path = Path(tempfile.mkdtemp(prefix=prefix, suffix=ENDING, dir=parent))
        try:
            lock = _locked(path)
        except (BlockingIOError, FileNotFoundError):
            continue
        except OSError:
            # This file system knows no locks, so nobody tidies up either.
            return path, None
        # Another process that tidies up may have been quicker.
        if path.exists():
            return path, lock
        os.close(lock)


def _tidy(parent: Path, prefix: str) -> None:
    """Remove the directories whose makers were killed."""
    for path in parent.iterdir() if os.access(parent, os.R_OK) else ():
        if _unfinished(path, prefix):
            with suppress(OSError):
                lock = _locked(path)
                shutil.rmtree(path, ignore_errors=True)
                os.close(lock)


def _unfinished(path: Path, prefix: str) -> bool:
    pattern = re.escape(prefix) + MIDDLE + re.escape(ENDING)
    return re.fullmatch(pattern, path.name) is not None and path.is_dir()


def _locked(path: Path) -> int:
    """Take the lock on a directory; BlockingIOError if another process has it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _mode(place: Path) -> int:
    """The rights of the directory that is there, or those that any new one has."""
    if place.exists():
        return place.stat().st_mode & 0o7777
    umask = os.umask(0)
    os.umask(umask)
    return 0o777 & ~umask
