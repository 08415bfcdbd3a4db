# SPDX-License-Identifier: Apache-2.0
"""What a user sees: progress on stderr, and results for programs on stdout."""

from __future__ import annotations

import json
from typing import Any

from cintervene.utils.escaping import json_printable, printable, printable_lines
from cintervene.utils.json_ready import json_ready
from cintervene.utils.progress_bar import ProgressBar

__all__ = ["Console", "print_json", "say"]


class Console(ProgressBar):
    """A `ProgressBar` that also writes lines of text to its stream."""

    def note(self, line: str) -> None:
        """Write a line of text of its own."""
        self.close()
        self._write(printable(line))


def print_json(value: Any) -> None:
    """Print a value as one JSON document."""
    ready = json_ready(value)
    text = json.dumps(ready, ensure_ascii=False, indent=2, allow_nan=False)
    print(json_printable(text))


def say(text: object) -> None:
    """Print lines, in which nothing acts on the terminal."""
    print(printable_lines(str(text)))
