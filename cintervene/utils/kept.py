# SPDX-License-Identifier: Apache-2.0
"""What several calls have in common, worked out once while a block lasts.

Methods and measures name what can be shared and say what it depends on, besides the
model and its tokenizer. Without a block nothing is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar, cast

__all__ = ["keeping", "kept"]

T = TypeVar("T")

_kept: ContextVar[dict[str, tuple[object, Any]] | None] = ContextVar(
    "kept work", default=None
)


@contextmanager
def keeping() -> Iterator[None]:
    """Keep what is shared inside the block, in which there is one model only."""
    token = _kept.set({})
    try:
        yield
    finally:
        _kept.reset(token)


def kept(name: str, depends_on: object, make: Callable[[], T]) -> T:
    """Return what was last made under a name, or make it where that is another one.

    Parameters
    ----------
    name : str
        What was kept under it before is forgotten, so that memory is bounded.
    depends_on : object
        All that the result depends on but the model; compared by ``==``.
    make : callable
    """
    known = _kept.get()
    if known is None:
        return make()
    if name not in known or known[name][0] != depends_on:
        known.pop(name, None)
        known[name] = (depends_on, make())
    return cast(T, known[name][1])
