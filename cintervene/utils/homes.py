# SPDX-License-Identifier: Apache-2.0
"""Paths that begin with a home directory."""

from __future__ import annotations

from pathlib import Path

from cintervene.errors import ArgumentError

__all__ = ["expanded"]


def expanded(path: str | Path) -> Path:
    """A path in which ``~`` is the home directory, as shells have it.

    Raises
    ------
    ArgumentError
        It begins with the home of somebody who has none.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ArgumentError(
            f"got {str(path)!r}, expected a path: nobody of that name has a home"
        ) from None
