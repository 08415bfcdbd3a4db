# SPDX-License-Identifier: Apache-2.0
"""What an export returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Artefact:
    """Something that was written, and read again to see what became of the change.

    Attributes
    ----------
    path : Path
        The file, or the directory.
    rank : int
        The rank that all changes have in it.
    errors : dict of str to float
        By weight: Frobenius norm of (change as read again - change as meant) over that
        of the change meant; the rounding to the types of the artefact.
    unchanged : list of str
        Weights whose change is lost in that rounding.
    """

    path: Path
    rank: int
    errors: dict[str, float]
    unchanged: list[str] = field(default_factory=list)

    @property
    def changed(self) -> list[str]:
        """The other weights."""
        return [name for name in self.errors if name not in self.unchanged]
