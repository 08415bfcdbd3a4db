# SPDX-License-Identifier: Apache-2.0
"""Checks that numbers given as arguments are in range."""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Integral
from typing import SupportsFloat

from cintervene.errors import ArgumentError

__all__ = [
    "check_not_negative",
    "check_positive",
    "check_share",
    "check_texts",
    "check_whole",
    "number",
]

# What the core counts with.
_TOO_LARGE = 1 << 63


def check_not_negative(**numbers: float) -> None:
    """Refuse arguments that are negative or not finite.

    Raises
    ------
    ArgumentError
        Names the first such argument.
    """
    for name, value in numbers.items():
        if not 0.0 <= number(value) < math.inf:
            raise ArgumentError(f"{name}: got {value!r}; expected a number from 0 on")


def check_positive(**numbers: float) -> None:
    """Refuse arguments that are not positive and finite.

    Raises
    ------
    ArgumentError
        Names the first such argument.
    """
    for name, value in numbers.items():
        if not 0.0 < number(value) < math.inf:
            raise ArgumentError(f"{name}: got {value!r}; expected a positive number")


def check_share(**numbers: float) -> None:
    """Refuse arguments that are not from 0 to 1.

    Raises
    ------
    ArgumentError
        Names the first such argument.
    """
    for name, value in numbers.items():
        if not 0.0 <= number(value) <= 1.0:
            raise ArgumentError(f"{name}: got {value!r}; expected a number from 0 to 1")


def check_whole(least: int, **numbers: int) -> None:
    """Refuse arguments that are no whole numbers, below `least` or beyond 64 bits.

    Raises
    ------
    ArgumentError
        Names the first such argument.
    """
    for name, value in numbers.items():
        whole = isinstance(value, Integral) and not isinstance(value, bool)
        if not (whole and value >= least):
            raise ArgumentError(
                f"{name}: got {value!r}; expected a whole number from {least} on"
            )
        if value >= _TOO_LARGE:
            raise ArgumentError(f"{name}: got {value!r}; expected less than 2**63")


def number(value: object) -> float:
    """A number, NaN for what is none; arrays and tensors of one entry are numbers.

    Truth values are none, though Python counts with them.
    """
    if isinstance(value, bool):
        return math.nan
    try:
        return float(value) if isinstance(value, SupportsFloat) else math.nan
    except (TypeError, ValueError, RuntimeError, ArithmeticError):
        return math.nan


def check_texts(name: str, texts: object) -> list[str]:
    """Return the texts; refuse what is none, a single one, and blank ones."""
    if isinstance(texts, str) or not isinstance(texts, Iterable):
        fix = f". Write {[texts]!r}" if isinstance(texts, str) else ""
        raise ArgumentError(f"{name}: got {texts!r}; expected a list of texts{fix}")
    found = list(texts)
    for one in found:
        if not isinstance(one, str) or not one.strip():
            raise ArgumentError(f"{name}: got {one!r}; expected texts, none blank")
    return found
