# SPDX-License-Identifier: Apache-2.0
"""What a model card says of each kind of change, and of no other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cintervene.methods.account import Account, Options
from cintervene.methods.registry import all_methods, find_method
from cintervene.utils.parameters import parameters

__all__ = ["accounts", "kind_of", "kinds", "recorded", "unreachable"]

UNKNOWN = Account(
    asked="How the change was made was not recorded.",
    found="How it was found was not recorded.",
    unproved="",
    limits=("What it was made for, and so what it misses, was not recorded.",),
)


def recorded(options: Options) -> Iterator[Options]:
    """The options of a change, or of those that it was scaled or added from."""
    sources = [options["from"]] if "from" in options else options.get("sum_of")
    if sources is None:
        yield options
        return
    for source in sources:
        yield from recorded(source)


def kind_of(options: Options) -> str:
    """What a change was made of words, examples or requests by; empty if unknown."""
    method = options.get("method", "pcr")
    if method != "pcr":
        return method if method in all_methods() else ""
    kinds = ("forbid", "examples", "harmful")
    return next((kind for kind in kinds if options.get(kind)), "")


def kinds(options: Options) -> list[str]:
    """The kinds of a change and of those that it was scaled or added from."""
    return [kind_of(part) for part in recorded(options)]


def accounts(options: Options) -> list[tuple[Account, dict[str, Any]]]:
    """Return what is said of each part of a change, with the options of that part."""
    found = []
    for part in recorded(options):
        words = part.get("forbid") or []
        known = {"count": len(words), "words": ", ".join(map(str, words))}
        account = UNKNOWN
        if kind_of(part):
            account = find_method(part.get("method", "pcr")).account(part)
        found.append((account, {**part, **known}))
    return found


def unreachable(options: Options) -> dict[str, Any]:
    """Return options that are not the default and that the command does not take."""
    known = {one.name: one for one in parameters(find_method(options["method"]).config)}
    return {
        name: value
        for name, value in options.items()
        if name in known and not known[name].flag and known[name].default != value
    }
