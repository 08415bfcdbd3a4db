# SPDX-License-Identifier: Apache-2.0
"""Flags for the parameters of all methods, made of how these are described."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from cintervene.cli.arguments.shared import Parser, reader
from cintervene.methods.config import MethodConfig
from cintervene.methods.registry import all_methods
from cintervene.utils.parameters import Group, Parameter, parameters
from cintervene.utils.ranges import Choice, Range

__all__ = ["Given", "add_parameter", "add_parameters", "flag", "owners_of"]

# By method: a parameter that it has.
Owners = Mapping[str, Parameter]


class Given(argparse.Action):
    """Puts a value into `given`, which holds what was given and no default."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Keep one value, several as a tuple."""
        value = tuple(values) if isinstance(values, list) else values
        namespace.given = {**namespace.given, self.dest: value}


def owners_of() -> dict[str, dict[str, Parameter]]:
    """By name: the parameters that have a flag, by the methods that have them.

    What methods have of their own comes before what all have.
    """
    found: dict[str, dict[str, Parameter]] = {}
    for method in all_methods().values():
        for one in parameters(method.config):
            if one.flag:
                found.setdefault(one.name, {})[method.name] = one
    common = MethodConfig.names()
    return dict(sorted(found.items(), key=lambda item: item[0] in common))


def flag(name: str) -> str:
    """The flag of a parameter."""
    return f"--{name.replace('_', '-')}"


def add_parameters(parser: Parser, groups: Mapping[Group, Any]) -> None:
    """Add a flag for each name of a parameter.

    Parameters
    ----------
    parser : Parser
    groups : mapping of str to argument group
        Where flags of each group of parameters go.
    """
    parser.set_defaults(given={})
    for name, owners in owners_of().items():
        group = groups[next(iter(owners.values())).group]
        add_parameter(group, name, owners, action=Given, default=argparse.SUPPRESS)


def add_parameter(
    group: argparse._ActionsContainer, name: str, owners: Owners, **options: Any
) -> None:
    """Add the flag of one parameter; `options` as for `add_argument`."""
    ranges = [one.range for one in owners.values()]
    names = [n for r in map(_inner, ranges) if isinstance(r, Choice) for n in r.names]
    if names:
        options["choices"] = list(dict.fromkeys(names))
    else:
        options["type"] = reader(ranges)
        options["metavar"] = ranges[0].metavar
        if ranges[0].values > 1:
            options["nargs"] = ranges[0].values
            options["metavar"] = (ranges[0].metavar,) * ranges[0].values
    group.add_argument(flag(name), help=_help(owners).replace("%", "%%"), **options)


def _inner(range: Range) -> Range:
    """A range without "auto" or None."""
    inner: Range = getattr(range, "range", range)
    return inner


def _help(owners: Owners) -> str:
    """What the parameter means, by the methods for which it means the same."""
    texts: dict[str, list[str]] = {}
    for method, one in owners.items():
        texts.setdefault(one.help, []).append(method)
    parts = []
    for text, methods in texts.items():
        everyone = len(methods) == len(all_methods())
        names = "" if everyone else f"{', '.join(methods)}: "
        parts.append(f"{names}{text}{_defaults({m: owners[m] for m in methods})}")
    return "; ".join(parts)


def _defaults(owners: Owners) -> str:
    """The default, or that of each method."""
    values: dict[str, list[str]] = {}
    for method, one in owners.items():
        values.setdefault(_shown(one.default), []).append(method)
    if len(values) == 1:
        (value,) = values
        return f" (default: {value})" if value else ""
    each = (f"{value} for {' and '.join(names)}" for value, names in values.items())
    return f" (default: {', '.join(each)})"


def _shown(value: Any) -> str:
    """A default as it is written on the command line; empty without one."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    return "" if value is None or value == () else str(value)
