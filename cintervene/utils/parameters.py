# SPDX-License-Identifier: Apache-2.0
"""Parameters that are described once, as fields of frozen dataclasses.

A field says its type, default, range and help. What checks values, what a command line
offers, what a file holds and what a result records are all read from that.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass
from difflib import get_close_matches
from typing import Any, ClassVar, Literal, Self

from cintervene.errors import ArgumentError
from cintervene.utils.ranges import Range, Withheld

__all__ = [
    "Described",
    "Group",
    "Parameter",
    "check_alone",
    "parameter",
    "parameters",
]

Group = Literal["texts", "main", "limits", "details"]


@dataclass(frozen=True)
class Parameter:
    """One parameter of a `Described` class.

    Attributes
    ----------
    name : str
    range : Range
        What it can be.
    default
        Its default value.
    help : str
        What it means, in a line for ``--help``; begins in lower case, without a stop.
    flag : bool
        Whether command lines take it.
    private : bool
        Whether a result records only how many texts there are.
    formerly : str
        Name under which older files hold it; empty for none.
    group : {"texts", "main", "limits", "details"}
        Heading under which command lines show it: what it is about, how the change is
        made, what it may cost, or what rarely needs a change.
    """

    name: str
    range: Range
    default: Any
    help: str
    flag: bool = True
    private: bool = False
    formerly: str = ""
    group: Group = "details"


def parameter(
    range: Range,
    default: Any,
    help: str,
    *,
    flag: bool = True,
    private: bool = False,
    formerly: str = "",
    group: Group = "details",
) -> Any:
    """Declare a field of a `Described` dataclass; see `Parameter`."""
    about = {
        "range": range, "help": help, "flag": flag, "private": private,
        "formerly": formerly, "group": group,
    }  # fmt: skip
    return dataclasses.field(default=default, metadata=about)


def parameters(described: type[Described] | Described) -> list[Parameter]:
    """The parameters of a class, in the order in which they are declared."""
    declared = []
    for field in dataclasses.fields(described):
        assert field.default is not MISSING, f"{field.name} has no default"
        declared.append(Parameter(field.name, default=field.default, **field.metadata))
    return declared


def check_alone(names: Iterable[str]) -> None:
    """Refuse what is given beside a configuration.

    Raises
    ------
    ArgumentError
        There is something.
    """
    given = ", ".join(names)
    if given:
        raise ArgumentError(
            f"config: got one beside {given}; give either a configuration or the "
            "parameters one by one"
        )


@dataclass(frozen=True)
class Described:
    """Base of frozen dataclasses whose fields are made by `parameter`.

    Values are checked where an object is made, and brought into one form: lists become
    tuples. What is wrong raises ArgumentError, which names the parameter.
    """

    # What error messages call the parameters of this class.
    subject: ClassVar[str] = "parameter"

    def __post_init__(self) -> None:
        for one in parameters(self):
            value = one.range.check(one.name, getattr(self, one.name))
            object.__setattr__(self, one.name, value)

    @classmethod
    def of(cls, config: Self | None, values: Mapping[str, Any]) -> Self:
        """Return `config`, or without one make it of values by name.

        Raises
        ------
        ArgumentError
            Both are given, it is something else, a name is unknown, or a value out of
            range.
        """
        if config is None:
            cls.check_names(values)
            return cls(**values)
        if not isinstance(config, cls):
            raise ArgumentError(
                f"config: got {type(config).__name__}; expected {cls.__name__}; words "
                "are given as forbid="
            )
        check_alone(values)
        return config

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Make one from what `to_dict` returned, a file held, or a result recorded.

        Keys that a later version renamed are understood; of texts that were not
        recorded, only how many, `Withheld` takes the place.

        Raises
        ------
        ArgumentError
            A name is unknown or a value out of range.
        """
        known = parameters(cls)
        former = {one.formerly: one.name for one in known if one.formerly}
        named = {
            name if name in cls.names() else former.get(name, name): value
            for name, value in values.items()
        }
        cls.check_names(named)
        for one in known:
            value = named.get(one.name)
            if one.private and isinstance(value, int) and not isinstance(value, bool):
                named[one.name] = Withheld(value) if value else one.default
            elif one.name in named:
                named[one.name] = one.range.from_json(value)
        return cls(**named)

    def to_dict(self, private: bool = True) -> dict[str, Any]:
        """Return all values as JSON has them; for TOML leave out what is None.

        Parameters
        ----------
        private : bool
            Whether texts of private parameters are included; otherwise, and where they
            are not known, only how many there are.
        """
        values = {}
        for one in parameters(self):
            value = getattr(self, one.name)
            hidden = one.private and not private and value is not None
            if isinstance(value, Withheld):
                values[one.name] = value.count
            else:
                values[one.name] = len(value) if hidden else one.range.to_json(value)
        return values

    @classmethod
    def names(cls) -> list[str]:
        """The names of the parameters."""
        return [field.name for field in dataclasses.fields(cls)]

    @classmethod
    def check_names(cls, names: Iterable[str], more: str = "") -> None:
        """Refuse what is no parameter, and name what may be meant.

        Parameters
        ----------
        names : iterable of str
        more : str
            Put into the message behind the subject.
        """
        known = cls.names()
        for name in names:
            if name not in known:
                near = get_close_matches(name, known) or known
                raise ArgumentError(
                    f"{name}: is no {cls.subject}{more}; did you mean "
                    f"{', '.join(near)}?"
                )
