# SPDX-License-Identifier: Apache-2.0
"""Hidden files and directories that hold what is not finished.

Each is locked for as long as its maker lives. What is not locked was left by a process
that was killed, and the next one that writes to the same place removes it.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

__all__ = [
    "hidden_prefix", "is_unfinished", "left_behind", "make_directory", "make_file",
    "tidy_directories", "tidy_files",
]  # fmt: skip

ENDING = ".unfinished"
# What stands between prefix and ending.
MIDDLE = "[a-z0-9_]{8}"
# Of a name; with the rest a file system takes 255.
NAME_BYTES = 200


def hidden_prefix(name: str) -> str:
    """How hidden names of what will be called `name` begin."""
    return f".{os.fsdecode(os.fsencode(name)[:NAME_BYTES])}-"


def is_unfinished(path: Path, prefix: str) -> bool:
    """Tell whether `make_directory` or `make_file` made it, by its name."""
    pattern = re.escape(prefix) + MIDDLE + re.escape(ENDING)
    return re.fullmatch(pattern, path.name) is not None and not path.is_symlink()


def make_directory(parent: Path, prefix: str) -> tuple[Path, int | None]:
    """Make a hidden directory, and lock it; close the descriptor to let go of it."""
    while True:
        path = _new_name(parent, prefix)
        path.mkdir()
        try:
            lock = _locked(path, os.O_DIRECTORY)
        except (BlockingIOError, FileNotFoundError):
            continue
        except OSError:
            # This file system knows no locks, so nobody tidies up either.
            return path, None
        # Another process that tidies up may have been quicker.
        if path.exists():
            return path, lock
        os.close(lock)


def make_file(parent: Path, prefix: str) -> tuple[Path, int]:
    """Make a hidden file, open it for writing, and lock it until it is closed."""
    while True:
        path = _new_name(parent, prefix)
        # The kernel masks the rights, as those of any new file.
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        descriptor = os.open(path, flags, 0o666)
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return path, descriptor
        os.close(descriptor)


def left_behind(parent: Path, prefix: str) -> Iterator[Path]:
    """The hidden directories whose makers were killed, each locked while it is had."""
    for path in _unfinished(parent, prefix):
        if path.is_dir():
            with suppress(OSError):
                lock = _locked(path, os.O_DIRECTORY)
                try:
                    yield path
                finally:
                    os.close(lock)


def tidy_directories(parent: Path, prefix: str) -> None:
    """Remove the hidden directories whose makers were killed."""
    for path in left_behind(parent, prefix):
        shutil.rmtree(path, ignore_errors=True)


def tidy_files(parent: Path, prefix: str) -> None:
    """Remove the hidden files whose makers were killed."""
    for path in _unfinished(parent, prefix):
        with suppress(OSError):
            lock = _locked(path, os.O_NONBLOCK)
            if path.is_file():
                path.unlink()
            os.close(lock)


def _unfinished(parent: Path, prefix: str) -> list[Path]:
    try:
        return [path for path in parent.iterdir() if is_unfinished(path, prefix)]
    except OSError:
        return []


def _new_name(parent: Path, prefix: str) -> Path:
    return parent / f"{prefix}{secrets.token_hex(4)}{ENDING}"


def _locked(path: Path, flags: int) -> int:
    """Take the lock on what is there; BlockingIOError if another process has it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | flags)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
