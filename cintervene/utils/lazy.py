# SPDX-License-Identifier: Apache-2.0
"""An attribute that is computed when it is first read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar, overload

__all__ = ["lazy"]

T = TypeVar("T")


class lazy(Generic[T]):
    """A method without arguments, read as an attribute and called once.

    As `functools.cached_property`, but with no lock: that of Python 3.11 is one for all
    objects of a class, and a process forked while another thread computes inherits it
    locked, for good. Two threads that read at a time compute the same twice.
    """

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self._compute = compute
        self.__doc__ = compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type) -> T: ...
    def __get__(self, instance: object | None, owner: type) -> Self | T:
        if instance is None:
            return self
        # Later reads find it there and never come here.
        value = instance.__dict__[self._name] = self._compute(instance)
        return value
