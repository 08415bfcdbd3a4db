# SPDX-License-Identifier: Apache-2.0
"""The settings of a sweep: each words with each method, layers and strength."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal, TypeAlias

from cintervene.errors import ArgumentError
from cintervene.methods.config import MethodConfig
from cintervene.methods.defend import configure
from cintervene.methods.registry import Method, all_methods, find_method
from cintervene.utils.parameters import parameters
from cintervene.utils.ranges import takes_file

__all__ = ["AXES", "Layers", "Setting", "Strength", "settings_of"]

Layers: TypeAlias = Literal["auto"] | Sequence[int]
Strength: TypeAlias = Literal["auto"] | float
# What has an argument of its own, because it is what settings differ in.
AXES = ("forbid", "layers", "strength")
EXAMPLES = {
    "forbid": '{"drugs": ["heroin"]}', "method": '["pcr", "pcr:hinge=off"]',
    "layers": '[[27, 28], [29], "auto"]', "strength": '[2, 4, "auto"]',
}  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """One of the changes of a sweep.

    Attributes
    ----------
    words : str
        What the words are called.
    method : str
        With its own parameters, as it was asked for: ``"pcr:hinge=off"``.
    layers, strength : str
        As they were asked for: ``"27,28"``, ``"4"`` or ``"auto"``.
    config : MethodConfig
    """

    words: str
    method: str
    layers: str
    strength: str
    config: MethodConfig

    @property
    def name(self) -> str:
        """Of its directory."""
        whole = f"{self.words}_{self.method}_layers-{self.layers}_{self.strength}"
        return re.sub(r"[^\w.,=+-]+", "-", whole)


def settings_of(
    forbid: Mapping[str, Sequence[str]],
    methods: Sequence[str],
    layers: Sequence[Layers],
    strengths: Sequence[Strength],
    budget: str,
    common: Mapping[str, Any],
) -> list[Setting]:
    """Return all settings; those that share most come one after the other.

    Parameters
    ----------
    forbid : mapping of str to sequence of str
        Words by the name of their list.
    methods : sequence of str
        Names, each perhaps with parameters: ``"pcr:hinge=off:max_rank=64"``.
    layers, strengths : sequence
    budget : str
        Whose parameters of each method are taken.
    common : mapping
        Further parameters of all.

    Raises
    ------
    ArgumentError
        An argument is empty, a method or a parameter unknown, a value out of range, or
        a setting there twice.
    """
    axes = {"forbid": forbid, "method": methods, "layers": layers}
    for name, given in {**axes, "strength": strengths}.items():
        if isinstance(given, str) or not len(given):
            raise ArgumentError(
                f"{name}: got {given!r}; expected a list of at least one, e.g. "
                f"{EXAMPLES[name]}"
            )
    found = []
    for words, method in product(forbid, methods):
        asked = {**_asked(method, budget), **common}
        called = _method(method).name
        for where, strength in product(layers, strengths):
            values: dict[str, Any] = {
                "forbid": forbid[words], "layers": where, "strength": strength
            }  # fmt: skip
            one = configure(called, {**asked, **values})
            found.append(Setting(words, method, _text(where), _text(strength), one))
    names = [one.name for one in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ArgumentError(
            f"method, layers, strength: got {twice} twice; give each setting once"
        )
    return found


def _method(spec: str) -> Method:
    """The method of a name with parameters, one that words can be given to."""
    method = find_method(spec.partition(":")[0])
    able = [one.name for one in all_methods().values() if _has_axes(one)]
    if method.name not in able:
        raise ArgumentError(
            f"method: got {method.name!r}, which forbids no words at a strength; "
            f"expected {' or '.join(map(repr, able))}"
        )
    return method


def _has_axes(method: Method) -> bool:
    return {*AXES} <= {*method.config.names()}


def _asked(spec: str, budget: str) -> dict[str, Any]:
    """The parameters that a method is named with, and those of the budget."""
    config = _method(spec).config
    if budget not in config.budgets:
        raise ArgumentError(
            f"budget: got {budget!r}; expected {', '.join(config.budgets)}"
        )
    ranges = {
        one.name: one.range
        for one in parameters(config)
        if one.flag and one.name not in AXES and not takes_file(one.range)
    }
    values = dict(config.budgets[budget])
    for part in spec.split(":")[1:]:
        name, equals, text = part.partition("=")
        name = name.strip().replace("-", "_")
        if name not in ranges:
            raise ArgumentError(
                f"method: got {spec!r}, in which {name!r} cannot be given; expected "
                f"NAME=VALUE by colons with some of {', '.join(ranges)}"
            )
        try:
            values[name] = ranges[name].parse(text if equals else "")
        except ValueError as error:
            raise ArgumentError(
                f"method: got {spec!r}, in which {name} is {text!r}; expected {error}"
            ) from error
    return values


def _text(value: object) -> str:
    """Layers or a strength as they name a setting."""
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
