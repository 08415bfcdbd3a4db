# SPDX-License-Identifier: Apache-2.0
"""Programs at a terminal that is a pair of files, and what its screen would show."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import time
from fcntl import ioctl
from pathlib import Path
from termios import TIOCSCTTY, TIOCSWINSZ
from types import TracebackType

# Seconds to wait for what a program is to write; loading torch takes some of them.
PATIENCE = 300
CONTROL = re.compile(r"\x1b\[(\?)?([\d;]*)([A-Za-z])|[\r\n]|\x1b.|[^\x1b\r\n]+")


class Terminal:
    """A program at a terminal of so many cells.

    Parameters
    ----------
    argv : sequence of str
        What follows ``python``.
    width, height : int
    log : Path
        File for what it writes to stderr.

    Attributes
    ----------
    text : str
        All that it wrote to the terminal, what is typed included.
    """

    def __init__(
        self, argv: list[str], log: Path, width: int = 80, height: int = 24
    ) -> None:
        self.text = ""
        self._seen = 0
        self._master, slave = pty.openpty()
        ioctl(slave, TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

        def own() -> None:
            ioctl(0, TIOCSCTTY, 0)
            # What runs tests in the background may ignore it, which is inherited.
            signal.signal(signal.SIGINT, signal.default_int_handler)

        # Columns are for terminals that say what they are.
        environment = {**os.environ, "TERM": "xterm", "PYTHONIOENCODING": "utf-8"}
        for name in ("COLUMNS", "LINES"):
            environment.pop(name, None)
        with log.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, *argv], stdin=slave, stdout=slave, stderr=errors,
                start_new_session=True, preexec_fn=own, env=environment,
            )  # fmt: skip
        os.close(slave)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)

    def type(self, text: str) -> None:
        """Press keys; ``\\x03`` is Ctrl-C and ``\\x04`` Ctrl-D."""
        os.write(self._master, text.encode())

    def until(self, pattern: str) -> str:
        """Wait for what was not waited for yet; return all up to its end."""
        found = self._found(pattern, PATIENCE)
        assert found is not None, f"no {pattern!r} in {self.text[self._seen :]!r}"
        return found

    def interrupt(self, pattern: str) -> str:
        """Press Ctrl-C as `until` waits, and again where it was lost.

        One that comes between readline's prompt and its wait for keys is not seen
        before the next key.
        """
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            self.type("\x03")
            found = self._found(pattern, PATIENCE / 10)
            if found is not None:
                return found
        raise AssertionError(f"no {pattern!r} in {self.text[self._seen :]!r}")

    def ends(self) -> int:
        """Wait until the program ends, and return its exit code."""
        end = time.monotonic() + PATIENCE
        while self._read(end):
            pass
        return self.process.wait(PATIENCE)

    def _found(self, pattern: str, seconds: float) -> str | None:
        """What came up to the end of a pattern; None where it does not come."""
        end = time.monotonic() + seconds
        while True:
            found = re.compile(pattern).search(self.text, self._seen)
            if found:
                begun, self._seen = self._seen, found.end()
                return self.text[begun : found.end()]
            if not self._read(end):
                return None

    def _read(self, end: float) -> bool:
        """Read what there is; False at the end, or when it took too long."""
        ready, _, _ = select.select(
            [self._master], [], [], max(0, end - time.monotonic())
        )
        if not ready:
            return False
        try:
            found = os.read(self._master, 65536)
        except OSError:
            # Linux says so where nobody has the other end any more.
            return False
        self.text += found.decode("utf-8", "replace")
        return bool(found)


def screen(text: str, height: int) -> list[str]:
    """The rows that a terminal shows after some text, with those that left it.

    A character counts one cell; fails where the cursor would leave the screen.
    """
    rows, row, column = [""], 0, 0
    for found in CONTROL.finditer(text):
        private, number, kind = found[1], found[2] or "1", found[3]
        if found[0] == "\r":
            column = 0
        elif found[0] == "\n":
            # A terminal in its usual mode begins the next row.
            row, column = row + 1, 0
            rows += [""] * (row + 1 - len(rows))
        elif kind == "A" and not private:
            row -= int(number)
            assert row >= max(0, len(rows) - height), "above the screen"
        elif kind == "J" and not private:
            rows[row:] = [rows[row][:column]]
        elif found[0][0] != "\x1b":
            before, after = rows[row][:column], rows[row][column + len(found[0]) :]
            rows[row] = before.ljust(column) + found[0] + after
            column += len(found[0])
    return rows
