# SPDX-License-Identifier: Apache-2.0
"""The three splits of the data."""

from typing import Literal, get_args

from cintervene.errors import ArgumentError

Split = Literal["train", "tune", "held_out"]

SPLITS: tuple[str, ...] = get_args(Split)


def check_split(split: object, available: tuple[str, ...] = SPLITS) -> None:
    """Raise ArgumentError unless `split` is one of `available`."""
    if split not in available:
        names = ", ".join(repr(name) for name in available)
        raise ArgumentError(
            f"split: got {split!r}, expected one of {names}; for example, pass "
            f"split={available[-1]!r}"
        )
