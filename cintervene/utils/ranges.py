# SPDX-License-Identifier: Apache-2.0
"""What a parameter can be: checked, read from a command line, written to a file."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from operator import index
from typing import Any, Protocol

from cintervene.errors import ArgumentError
from cintervene.utils.json_text import parse_json
from cintervene.utils.validation import (
    check_not_negative,
    check_positive,
    check_share,
    check_texts,
    check_whole,
    number,
)

__all__ = [
    "Auto",
    "Choice",
    "Exchanges",
    "Flag",
    "Layers",
    "Optional",
    "Options",
    "Pair",
    "Plain",
    "Positive",
    "Range",
    "Scale",
    "Share",
    "Texts",
    "Whole",
    "Withheld",
    "takes_file",
]


@dataclass(frozen=True)
class Withheld:
    """Stands for texts that were not recorded.

    Attributes
    ----------
    count : int
        How many they were.
    """

    count: int

    def __len__(self) -> int:
        return self.count


class Range(Protocol):
    """What a parameter can be; on a command line as well as in Python."""

    @property
    def metavar(self) -> str:
        """What stands for a value on a command line."""

    @property
    def values(self) -> int:
        """How many values follow the flag on a command line."""

    def check(self, name: str, value: Any) -> Any:
        """Return the value in its one form; raise ArgumentError where it is none."""

    def parse(self, text: str) -> Any:
        """Read a value from a command line.

        Raises
        ------
        ValueError
            It is none; the message says what is expected.
        """

    def to_json(self, value: Any) -> Any:
        """The value as JSON and TOML have it."""

    def from_json(self, value: Any) -> Any:
        """What `to_json` was given."""


@dataclass(frozen=True)
class Plain:
    """Base of ranges whose values JSON has as they are."""

    metavar: str = "VALUE"
    values: int = 1

    def parse(self, text: str) -> Any:
        """Read a value from a command line; raise ValueError where it is none."""
        return text

    def to_json(self, value: Any) -> Any:
        """The value as JSON and TOML have it."""
        return value

    def from_json(self, value: Any) -> Any:
        """What `to_json` was given."""
        return value


def _plain_number(value: Any) -> int | float:
    """A number as JSON has it; NumPy's and torch's become floats."""
    return value if isinstance(value, int) else float(value)


@dataclass(frozen=True)
class _Number(Plain):
    metavar: str = "NUMBER"

    def parse(self, text: str) -> Any:
        """Read a finite number."""
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise ValueError("a number")
        return value


@dataclass(frozen=True)
class Positive(_Number):
    """A finite number above 0, or from 0 on where `zero` is True."""

    zero: bool = False

    def check(self, name: str, value: Any) -> Any:
        """Return the number as an int or a float."""
        (check_not_negative if self.zero else check_positive)(**{name: value})
        return _plain_number(value)

    def parse(self, text: str) -> Any:
        """Read such a number."""
        return _parse_checked(
            self, text, "a number from 0 on" if self.zero else "a positive number"
        )


# Products of a few such numbers stay within float32.
_SMALLEST, _LARGEST = 1e-12, 1e12


@dataclass(frozen=True)
class Scale(Positive):
    """What sizes of weights and activations are multiplied with: 1e-12 to 1e12.

    From 0 on where `zero` is True. Farther out products overflow or vanish, and errors
    would name what came of them.
    """

    @property
    def expected(self) -> str:
        """What is expected, for messages."""
        also = "0 or " if self.zero else ""
        return f"{also}a number from {_SMALLEST:g} to {_LARGEST:g}"

    def check(self, name: str, value: Any) -> Any:
        """Return the number as an int or a float."""
        found = super().check(name, value)
        if found != 0 and not _SMALLEST <= found <= _LARGEST:
            raise ArgumentError(f"{name}: got {value!r}; expected {self.expected}")
        return found

    def parse(self, text: str) -> Any:
        """Read such a number."""
        return _parse_checked(self, text, self.expected)


@dataclass(frozen=True)
class Share(_Number):
    """A number from 0 to 1."""

    metavar: str = "SHARE"

    def check(self, name: str, value: Any) -> Any:
        """Return the number as an int or a float."""
        check_share(**{name: value})
        return _plain_number(value)

    def parse(self, text: str) -> Any:
        """Read such a number."""
        return _parse_checked(self, text, "a number from 0 to 1")


def _parse_checked(range: Range, text: str, expected: str) -> Any:
    """Read a number that the range's `check` takes."""
    try:
        return range.check("", float(text))
    except ValueError:
        raise ValueError(expected) from None


@dataclass(frozen=True)
class Whole(Plain):
    """A whole number from `least` on."""

    metavar: str = "N"
    least: int = 0

    def check(self, name: str, value: Any) -> Any:
        """Return the number as an int."""
        check_whole(self.least, **{name: value})
        return int(value)

    def parse(self, text: str) -> Any:
        """Read such a number."""
        if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) < self.least:
            raise ValueError(f"a whole number from {self.least} on")
        return int(text)


@dataclass(frozen=True)
class Flag(Plain):
    """True or False."""

    metavar: str = "yes|no"

    def check(self, name: str, value: Any) -> Any:
        """Return the truth value."""
        if not isinstance(value, bool):
            raise ArgumentError(f"{name}: got {value!r}; expected True or False")
        return value

    def parse(self, text: str) -> Any:
        """Read yes or no."""
        if text not in ("yes", "no"):
            raise ValueError("yes or no")
        return text == "yes"


@dataclass(frozen=True)
class Choice(Plain):
    """One of some names."""

    metavar: str = "NAME"
    names: tuple[str, ...] = ()

    def check(self, name: str, value: Any) -> Any:
        """Return the name."""
        if not (isinstance(value, str) and value in self.names):
            valid = ", ".join(map(repr, self.names))
            raise ArgumentError(f"{name}: got {value!r}; expected one of {valid}")
        return value

    def parse(self, text: str) -> Any:
        """Read one of the names."""
        if text not in self.names:
            raise ValueError(f"one of {', '.join(self.names)}")
        return text


@dataclass(frozen=True)
class Auto:
    """The word "auto", or a value of another range.

    Attributes
    ----------
    range : Range
    expected : str
        What is expected besides "auto", for messages.
    """

    range: Range
    expected: str

    @property
    def metavar(self) -> str:
        """That of the other range."""
        return self.range.metavar

    @property
    def values(self) -> int:
        """That of the other range."""
        return self.range.values

    def check(self, name: str, value: Any) -> Any:
        """Return "auto", or the value in its one form."""
        if isinstance(value, str) and value == "auto":
            return value
        try:
            return self.range.check(name, value)
        except ArgumentError as error:
            raise ArgumentError(
                f'{name}: got {value!r}; expected "auto" or {self.expected}'
            ) from error

    def parse(self, text: str) -> Any:
        """Read "auto" or a value."""
        return text if text == "auto" else self.range.parse(text)

    def to_json(self, value: Any) -> Any:
        """The value as JSON and TOML have it."""
        return value if value == "auto" else self.range.to_json(value)

    def from_json(self, value: Any) -> Any:
        """What `to_json` was given."""
        return value if value == "auto" else self.range.from_json(value)


@dataclass(frozen=True)
class Optional:
    """None, or a value of another range.

    Attributes
    ----------
    range : Range
    word : str
        What stands for None on command lines and in files of which None cannot be left
        out; empty where it can, being the default.
    """

    range: Range
    word: str = ""

    @property
    def metavar(self) -> str:
        """That of the other range."""
        return self.range.metavar

    @property
    def values(self) -> int:
        """That of the other range."""
        return self.range.values

    def check(self, name: str, value: Any) -> Any:
        """Return None, or the value in its one form."""
        return None if value is None else self.range.check(name, value)

    def parse(self, text: str) -> Any:
        """Read the word for None, or a value."""
        absent = self.word and text == self.word
        return None if absent else self.range.parse(text)

    def to_json(self, value: Any) -> Any:
        """The value as JSON and TOML have it; None where it can be left out."""
        return (self.word or None) if value is None else self.range.to_json(value)

    def from_json(self, value: Any) -> Any:
        """What `to_json` was given, or None."""
        absent = value is None or (self.word and value == self.word)
        return None if absent else self.range.from_json(value)


@dataclass(frozen=True)
class Texts(Plain):
    """Several texts, none blank; on a command line a UTF-8 file with one a line.

    Attributes
    ----------
    metavar : str
    values : int
    least : int
        How many there have to be.
    """

    metavar: str = "FILE"
    least: int = 0

    def check(self, name: str, value: Any) -> Any:
        """Return the texts as a tuple."""
        if isinstance(value, Withheld):
            return value
        texts = tuple(check_texts(name, value))
        if len(texts) < self.least:
            raise ArgumentError(
                f"{name}: got {value!r}; expected a list of texts, {self.least} or more"
            )
        return texts

    def to_json(self, value: Any) -> Any:
        """The texts as a list."""
        return list(value)


@dataclass(frozen=True)
class Exchanges(Plain):
    """Prompts with an answer each, none blank; on no command line.

    Attributes
    ----------
    least : int
        How many there have to be.
    """

    least: int = 1

    def check(self, name: str, value: Any) -> Any:
        """Return them as a tuple of pairs."""
        if isinstance(value, Withheld):
            return value
        # A text of two letters and a table of two columns could be unpacked, too.
        several = isinstance(value, Iterable) and not isinstance(value, Mapping)
        pairs = tuple(
            tuple(one) if isinstance(one, (list, tuple)) else ()
            for one in (value if several else ())
        )
        if len(pairs) < self.least or not all(map(_is_exchange, pairs)):
            raise ArgumentError(
                f"{name}: got {value!r}; expected pairs of a prompt and its answer, "
                f'{self.least} or more, e.g. [("How are you?", "Fine, thank you.")]'
            )
        return pairs

    def to_json(self, value: Any) -> Any:
        """The pairs as lists."""
        return [list(pair) for pair in value]


def _is_exchange(pair: tuple[Any, ...]) -> bool:
    """Whether it is two texts, none blank."""
    return len(pair) == 2 and all(isinstance(one, str) and one.strip() for one in pair)


@dataclass(frozen=True)
class Options(Plain):
    """Values by name, as JSON has them; on a command line an object or ``a=1,b=x``."""

    metavar: str = "OPTIONS"

    def check(self, name: str, value: Any) -> Any:
        """Return them as a dict."""
        if not _is_json_object(value):
            raise ArgumentError(
                f"{name}: got {value!r}; expected values by name, of kinds that JSON "
                'has, e.g. {"enable_thinking": False}'
            )
        return dict(value)

    def parse(self, text: str) -> Any:
        """Read a JSON object, or names and values."""
        if text.lstrip().startswith("{"):
            try:
                return parse_json(text)
            except ValueError as error:
                raise ValueError(f"a JSON object ({error})") from error
        pairs = [part.partition("=") for part in text.split(",")]
        if not all(name.strip() and equals for name, equals, _ in pairs):
            raise ValueError("NAME=VALUE by commas, or a JSON object")
        found = {n.strip(): _json_or_text(value.strip()) for n, _, value in pairs}
        if len(found) < len(pairs):
            raise ValueError("NAME=VALUE by commas, each name once")
        return found


def _is_json_object(value: Any) -> bool:
    """Whether JSON has such a value by names."""
    if not isinstance(value, Mapping) or not all(isinstance(one, str) for one in value):
        return False
    try:
        json.dumps(dict(value))
    except (TypeError, ValueError):
        return False
    return True


def _json_or_text(text: str) -> Any:
    """A value of a command line; ``False`` is what Python writes for ``false``."""
    try:
        return json.loads(text.lower() if text in ("True", "False") else text)
    except ValueError:
        return text


def takes_file(range: Range) -> bool:
    """Whether a command line names a file for it that has one text a line."""
    return isinstance(getattr(range, "range", range), Texts)


# No model has more, and a range of billions would fill the memory.
_LAYER = "[0-9]{1,5}"


@dataclass(frozen=True)
class Layers(Plain):
    """Indices of layers, none twice; negative ones count from the end."""

    metavar: str = "LAYERS"

    def check(self, name: str, value: Any) -> Any:
        """Return the indices as a tuple; which there are, only the model tells."""
        try:
            if isinstance(value, (str, bytes, Mapping)):
                raise TypeError
            layers = tuple(map(index, value))
            if len(set(layers)) == len(layers):
                return layers
        except TypeError:
            pass
        raise ArgumentError(
            f"{name}: got {value!r}; expected layer indices, none twice, e.g. [14, 16]"
        )

    def parse(self, text: str) -> Any:
        """Read layers and inclusive ranges of them, such as ``26-29`` or ``3,7,-1``."""
        layers: list[int] = []
        for part in text.split(","):
            ends = re.fullmatch(rf"({_LAYER})-({_LAYER})", part.strip())
            if ends and int(ends[1]) <= int(ends[2]):
                layers.extend(range(int(ends[1]), int(ends[2]) + 1))
            elif re.fullmatch(rf"-?{_LAYER}", part.strip()):
                layers.append(int(part))
            else:
                raise ValueError("layers such as 26-29 or 3,7")
        return tuple(layers)

    def to_json(self, value: Any) -> Any:
        """The indices as a list."""
        return list(value)


@dataclass(frozen=True)
class Pair(_Number):
    """Two finite numbers."""

    values: int = 2

    def check(self, name: str, value: Any) -> Any:
        """Return the numbers as a tuple of floats."""
        match value:
            case (first, second):
                pair = number(first), number(second)
                if all(map(math.isfinite, pair)):
                    return pair
        raise ArgumentError(f"{name}: got {value!r}; expected two numbers")

    def to_json(self, value: Any) -> Any:
        """The numbers as a list."""
        return list(value)
