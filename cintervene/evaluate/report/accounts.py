# SPDX-License-Identifier: Apache-2.0
"""What methods say of their changes, and the parameters that these record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cintervene.intervention.sources import sources
from cintervene.methods.account import UNKNOWN, Account, Options
from cintervene.methods.registry import DEFAULT_METHOD, all_methods
from cintervene.utils.parameters import Parameter, parameters

__all__ = ["account_of", "accounts", "recorded", "unique"]


def account_of(options: Options) -> Account:
    """Return what the method says of a change; of an unknown method, that it is."""
    method = all_methods().get(options.get("method", DEFAULT_METHOD))
    return UNKNOWN if method is None else method.account(options)


def accounts(options: Options) -> list[tuple[Account, dict[str, Any]]]:
    """Return what is said of each part of a change, with the options of that part.

    Nothing is escaped: options may hold anything.
    """
    described = []
    for part in sources(options):
        words = part.get("forbid") or []
        more = {"count": len(words), "words": ", ".join(map(str, words))}
        described.append((account_of(part), {**part, **more}))
    return described


def recorded(options: Options) -> Mapping[str, tuple[Parameter, Any]]:
    """By name: the parameters of its method that a change records, and their values.

    Older files, which have other names for some, are understood.
    """
    method = all_methods().get(options.get("method", DEFAULT_METHOD))
    values = {}
    for one in [] if method is None else parameters(method.config):
        for name in (one.name, one.formerly):
            if name in options:
                values[one.name] = (one, options[name])
                break
    return values


def unique(texts: Iterable[str]) -> list[str]:
    """Each text once, in order."""
    return list(dict.fromkeys(texts))
