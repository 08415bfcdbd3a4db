# SPDX-License-Identifier: Apache-2.0
"""Attacks that come in families of texts, of which some are taken for each request."""

from __future__ import annotations

from collections.abc import Collection

from cintervene.attacks.base import Request
from cintervene.errors import ArgumentError

__all__ = ["check_family", "places_in_turn"]


def check_family(family: str, known: Collection[str]) -> None:
    """Check the name of a family.

    Raises
    ------
    ArgumentError
        There is none of that name.
    """
    if family not in known:
        raise ArgumentError(
            f"family: got {family!r}, expected one of {', '.join(known)}"
        )


def places_in_turn(
    request: Request, seed: int, known: int, count: int | None
) -> list[int]:
    """Numbers of the texts for a request, of so many; all where `count` is None.

    They take turns by the request's id and the seed.
    """
    start = seed + sum(request.id.encode())
    number = known if count is None else min(count, known)
    return [(start + turn) % known for turn in range(number)]
