# SPDX-License-Identifier: Apache-2.0
"""Values that were computed lately."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Recent"]

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """So many values by their keys; those that were added first are forgotten first.

    Parameters
    ----------
    most : int
        Values that are kept.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K, compute: Callable[[], V]) -> V:
        """The value of a key, computed where it is not kept."""
        value = self.find(key)
        return self.keep(key, compute()) if value is None else value

    def find(self, key: K) -> V | None:
        """The value of a key; None where it is not kept."""
        return self._values.get(key)

    def keep(self, key: K, value: V) -> V:
        """Keep a value, and return it."""
        self._values[key] = value
        while len(self._values) > self._most:
            self._values.popitem(last=False)
        return value
