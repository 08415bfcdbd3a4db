# SPDX-License-Identifier: Apache-2.0
"""What was measured of each strength that was tried, as columns of a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Column", "shown_columns"]


@dataclass(frozen=True, slots=True)
class Column:
    """One measure.

    Attributes
    ----------
    key : str
        Its name in a sweep.
    title : str
    form : str
        As `format` takes it.
    """

    key: str
    title: str
    form: str

    def text(self, point: Mapping[str, Any]) -> str:
        """What was measured of one point."""
        value = point[self.key]
        return "beyond range" if value is None else format(value, self.form)


COLUMNS = (
    Column("strength", "strength", ".2f"),
    Column("opening", "opens at", ".2f"),
    Column("answering", "in answers", ".2f"),
    Column("refused", "refused", ".1%"),
    Column("false_refusals", "more benign refused", ".1%"),
    Column("forbidden_ratio", "perplexity, times", ".2f"),
    Column("benign_ratio", "benign words', times", ".2f"),
    Column("kl", "KL, nats a token", ".4f"),
)


def shown_columns(point: Mapping[str, Any]) -> list[Column]:
    """The columns that a sweep of such points has."""
    return [column for column in COLUMNS if column.key in point]
