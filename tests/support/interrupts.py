# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C that comes by itself while something is computed."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

# Seconds to wait for an interrupt that comes after what it was meant for.
PATIENCE = 600.0


@contextmanager
def interrupt_after(seconds: float) -> Iterator[None]:
    """Raise KeyboardInterrupt after some time, as Python's handler of Ctrl-C does.

    It comes within the block, whatever else the machine does: where what is inside has
    ended before, it is waited for.
    """
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        yield
        time.sleep(PATIENCE)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
