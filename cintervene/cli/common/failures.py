# SPDX-License-Identifier: Apache-2.0
"""Exit codes, and the one line that a failure is told in."""

from __future__ import annotations

import errno
import re
from collections.abc import Collection
from enum import IntEnum

from cintervene.errors import ArgumentError, CinterveneError, NonFiniteError

FIXES = {
    errno.ENOSPC: "free some space and run it again",
    errno.EDQUOT: "free some space and run it again",
    errno.EACCES: "choose a place that you may use, or change its permissions",
    errno.EPERM: "choose a place that you may use, or change its permissions",
    errno.EROFS: "choose a place on a disk that can be written to",
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "check the path",
    errno.EISDIR: "give a file",
    errno.EIO: "check the disk",
}

# How messages of the library begin where they name parameters, and where they advise
# one: "give words as forbid=, or ...", "with beyond_limits=True".
NAMED = re.compile(r"\w+(, \w+)*(?=:)")
ADVISED = re.compile(r"\b(\w+)=(True\b|(?=[\s,;.)]|$))")


class Exit(IntEnum):
    """How a command can end."""

    DONE = 0
    GOAL_NOT_REACHED = 1
    USAGE = 2
    IO = 3
    BUG = 70
    INTERRUPTED = 130


def failure(error: Exception) -> tuple[Exit, str] | None:
    """Return exit code and line for an error that is not a bug, else None.

    What was typed gives `Exit.USAGE`; what was found on disk, in a model or on the
    network gives `Exit.IO`.
    """
    if isinstance(error, ArgumentError) and not isinstance(error, NonFiniteError):
        return Exit.USAGE, str(error)
    if isinstance(error, CinterveneError):
        return Exit.IO, str(error)
    if isinstance(error, OSError):
        return Exit.IO, _describe(error)
    if isinstance(error, MemoryError):
        return Exit.IO, "out of memory; end other programs or use a smaller model"
    if isinstance(error, ImportError):
        # What is optional says itself how to install it.
        return Exit.IO, str(error)
    return None


def with_flags(message: str, flags: Collection[str]) -> str:
    """Name the flags of a command where the library names parameters.

    Parameters
    ----------
    message : str
    flags : collection of str
        Those of the command, such as ``--max-kl``.
    """

    def flag(match: re.Match[str]) -> str:
        found = f"--{match[1].replace('_', '-')}"
        return found if found in flags else match[0]

    begins = NAMED.match(message)
    length = begins.end() if begins else 0
    head = re.sub(r"(\w+)", flag, message[:length])
    return head + ADVISED.sub(flag, message[length:])


def _describe(error: OSError) -> str:
    reason = (error.strerror or str(error) or type(error).__name__).lower()
    place = f" ({error.filename})" if error.filename else ""
    fix = FIXES.get(error.errno or 0)
    return f"{reason}{place}" + (f"; {fix}" if fix else "")
