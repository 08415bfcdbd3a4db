# SPDX-License-Identifier: Apache-2.0
"""The configuration of a method that flags and a file ask for."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Collection, Mapping
from typing import Any

from cintervene.cli.arguments.parameters import flag, owners_of
from cintervene.cli.common.budgets import budgeted
from cintervene.cli.common.config_file import read_config
from cintervene.cli.common.inputs import PACKAGED, read_texts
from cintervene.errors import ArgumentError
from cintervene.methods.config import MethodConfig, RequestConfig
from cintervene.methods.registry import DEFAULT_METHOD, Method, find_method
from cintervene.utils.parameters import parameters
from cintervene.utils.ranges import takes_file

__all__ = ["check_owned", "requested_config"]

# What else may do what a parameter does; the first of which a method has all.
INSTEAD: dict[str, list[tuple[str, ...]]] = {
    "forbid": [("harmful",)],
    "examples": [("harmful",)],
    "strength": [("thresholds",), ("max_kl", "max_false_refusals")],
    "thresholds": [("strength",), ("max_kl", "max_false_refusals")],
    "max_benign_loss": [("max_false_refusals",)],
    "max_false_refusals": [("max_benign_loss",)],
}
# Why it can be left out, where nothing else does it.
DISPENSABLE = {
    "min_effect": ", as much is refused as the limits allow",
    "matrix": ", gate, up and down projection are changed",
}


def requested_config(arguments: Namespace) -> MethodConfig:
    """Make the configuration of ``--config`` and of the flags that override it.

    Raises
    ------
    ArgumentError
        The method or a parameter is unknown, a value is out of range, or the method
        has not what was given.
    OSError
        A file cannot be read.
    """
    path = arguments.config
    stored = {} if path is None else read_config(path)
    given: Mapping[str, Any] = arguments.given
    named = arguments.method
    method = find_method(
        stored.get("method", DEFAULT_METHOD) if named is None else named
    )
    check_owned(method, given)
    sizes = budgeted(method, arguments, stored)
    values = {**stored, **sizes, **_read(method, given), "method": method.name}
    try:
        config = method.config.from_dict(values)
        config.check_known()
    except ArgumentError as error:
        if path is None or str(error).partition(":")[0] in given:
            raise
        raise ArgumentError(f"{path}: {error}") from error
    return config


def check_owned(method: Method, names: Collection[str]) -> None:
    """Refuse flags of parameters that a method has not.

    Raises
    ------
    ArgumentError
        Says which methods have it, and what to give instead.
    """
    known = [one.name for one in parameters(method.config) if one.flag]
    for name in names:
        if name not in known:
            owners = ", ".join(map(repr, owners_of()[name]))
            raise ArgumentError(
                f"{flag(name)}: is no option of method {method.name!r} (but of "
                f"{owners}); {_instead(name, known)}"
            )


def _instead(name: str, known: Collection[str]) -> str:
    """What to do in place of giving a parameter."""
    for others in INSTEAD.get(name, ()):
        if set(others) <= set(known):
            chosen = ", within which it is chosen" if len(others) > 1 else ""
            return f"give {' and '.join(map(flag, others))}{chosen}"
    return f"leave it out{DISPENSABLE.get(name, '')}"


def _read(method: Method, given: Mapping[str, Any]) -> dict[str, Any]:
    """The values given, with texts in place of the files that hold them."""
    ranges = {one.name: one.range for one in parameters(method.config)}
    return {
        name: _texts(method, name, value) if takes_file(ranges[name]) else value
        for name, value in given.items()
    }


def _texts(method: Method, name: str, source: str) -> list[str] | None:
    """The texts; None for requests of the package's where these are the default."""
    default = name == "harmful" and issubclass(method.config, RequestConfig)
    if default and source == PACKAGED[name]:
        return None
    return read_texts(name, source)
