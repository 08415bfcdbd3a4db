# SPDX-License-Identifier: Apache-2.0
"""Forks wait for what calls NumPy's LAPACK.

Its OpenBLAS has locks that a child keeps for ever where another thread of the parent
held them. The core sees to its own; here the whole call is what a fork waits for.
"""

import os
import threading
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

__all__ = ["undivided"]

P = ParamSpec("P")
R = TypeVar("R")

# Taken again by a thread that has it, so that a signal's handler may fork.
_inside = threading.RLock()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_inside.acquire,
        after_in_parent=_inside.release,
        after_in_child=_inside.release,
    )


def undivided(function: Callable[P, R]) -> Callable[P, R]:
    """Let no fork of Python happen while another thread is in `function`."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with _inside:
            return function(*args, **kwargs)

    return run
