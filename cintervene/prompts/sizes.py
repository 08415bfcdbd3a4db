# SPDX-License-Identifier: Apache-2.0
"""How much of something is taken, by numbers or by the name of a budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

from cintervene.errors import ArgumentError
from cintervene.utils.parameters import Described

__all__ = ["Size"]


@dataclass(frozen=True)
class Size(Described):
    """Base of sizes: whole numbers, of which some budgets are known by name."""

    subject: ClassVar[str] = "size"
    # By name: what differs from the defaults.
    budgets: ClassVar[Mapping[str, Mapping[str, int]]] = {}

    @classmethod
    def named(cls, budget: str, **numbers: int) -> Self:
        """Return the size of a budget, with some numbers of one's own.

        Parameters
        ----------
        budget : {"small", "default", "large"}
            `"small"` is a first look: sooner, on less, with wider intervals.
        **numbers
            Parameters by name.

        Raises
        ------
        ArgumentError
            There is no such budget or parameter, or a number is out of range.
        """
        if budget not in cls.budgets:
            raise ArgumentError(
                f"budget: got {budget!r}; expected {', '.join(cls.budgets)}"
            )
        cls.check_names(numbers)
        return cls(**{**cls.budgets[budget], **numbers})
