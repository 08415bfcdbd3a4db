# SPDX-License-Identifier: Apache-2.0
"""The splits of the data.

What methods are made from ("train"), what choices are made on ("tune"), what reports
are made of ("held_out"), and a frozen set that is reported on last and that nothing is
tuned on ("fresh").
"""

from typing import Literal, get_args

from cintervene.errors import ArgumentError

Split = Literal["train", "tune", "fresh", "held_out"]

SPLITS: tuple[str, ...] = get_args(Split)


def check_split(split: object, available: tuple[str, ...] = SPLITS) -> None:
    """Raise ArgumentError unless `split` is one of `available`."""
    if split not in available:
        names = ", ".join(repr(name) for name in available)
        raise ArgumentError(
            f"split: got {split!r}, expected one of {names}; for example, pass "
            f"split={available[-1]!r}"
        )
