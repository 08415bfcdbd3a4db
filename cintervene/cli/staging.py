# SPDX-License-Identifier: Apache-2.0
"""A directory of results that appears whole or not at all."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from cintervene.errors import ArgumentError

# Written and removed before the work begins, so that a full disk shows at once.
PROBE_BYTES = 1 << 20
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StagedDirectory:
    """Collects files out of sight and puts them in their place at the end.

    The files are written to a hidden directory on the same disk: beside the place, or
    inside it where the place is there already and empty. `commit` moves them; without
    it they are gone when the `with` block ends, however it ends.

    Parameters
    ----------
    place : Path
        Where the files shall be. Must not exist, or be an empty directory.

    Attributes
    ----------
    path : Path
        Where to write them.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self.path = Path()
        self._inside = False

    def __enter__(self) -> StagedDirectory:
        self._inside = check_place(self.place)
        if self._inside:
            parent, prefix = self.place, ".unfinished-"
        else:
            ancestors = self.place.absolute().parents
            parent = next(path for path in ancestors if path.exists())
            prefix = f".{self.place.name}-"
        with uninterrupted():
            self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
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
            _sync(file)
        with uninterrupted():
            if self._inside:
                for file in self.path.iterdir():
                    file.rename(self.place / file.name)
            else:
                self._open_to_others()
                self.place.parent.mkdir(parents=True, exist_ok=True)
                self.path.rename(self.place)
            _sync(self.place)
            _sync(self.place.parent)

    def _open_to_others(self) -> None:
        """Give the directory the rights that any new one has."""
        umask = os.umask(0)
        os.umask(umask)
        self.path.chmod(0o777 & ~umask)

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


def check_place(place: Path) -> bool:
    """Tell whether a directory for results is there already.

    Raises
    ------
    ArgumentError
        It is not empty, or something else has its name.
    OSError
        It cannot be looked into.
    """
    if not place.is_dir():
        if place.exists() or place.is_symlink():
            raise ArgumentError(f"--out: {place} is not a directory; give another name")
        return False
    held = next(place.iterdir(), None)
    if held is not None:
        raise ArgumentError(
            f"--out: {place} is not empty (it holds {held.name}); give a new directory"
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


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
