# SPDX-License-Identifier: Apache-2.0
"""Parameters are described once, and all else is read from that."""

from __future__ import annotations

import json
import math
from dataclasses import FrozenInstanceError, dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cintervene.errors import ArgumentError
from cintervene.utils.parameters import Described, parameter, parameters
from cintervene.utils.ranges import (
    Auto,
    Choice,
    Flag,
    Layers,
    Optional,
    Pair,
    Positive,
    Scale,
    Share,
    Texts,
    Whole,
    Withheld,
)


@dataclass(frozen=True, kw_only=True)
class Settings(Described):
    """A class of our own."""

    size: float = parameter(Positive(), 1.0, "how large")
    steps: int = parameter(Whole(least=1), 2, "how many steps", formerly="turns")
    places: Any = parameter(Auto(Layers(), "layer indices"), "auto", "where")
    notes: Any = parameter(Optional(Texts()), None, "texts", private=True)
    words: Any = parameter(Texts(), (), "words", private=True)
    hidden: bool = parameter(Flag(), False, "whether to hide", flag=False)


def test_parameters_come_in_the_order_in_which_they_are_declared() -> None:
    assert [one.name for one in parameters(Settings)] == Settings.names()
    assert Settings.names() == [
        "size", "steps", "places", "notes", "words", "hidden"
    ]  # fmt: skip
    size, steps, *_, hidden = parameters(Settings(size=3.0))
    assert (size.default, size.help, size.flag) == (1.0, "how large", True)
    assert (steps.formerly, hidden.flag) == ("turns", False)


def test_values_are_brought_into_one_form_and_cannot_be_changed() -> None:
    found = Settings(
        size=np.float32(2.0), steps=np.int64(3), places=[np.int64(1), -1], words=["a"]
    )
    assert found == Settings(size=2.0, steps=3, places=(1, -1), words=("a",))
    for value in (found.size, found.steps, *found.places):
        assert type(value) in (int, float)
    with pytest.raises(FrozenInstanceError):
        found.size = 1.0  # type: ignore[misc]


def test_dictionaries_hold_all_values_and_make_the_same_object() -> None:
    found = Settings(size=0.25, places=[4], notes=["Hi!"], words=["a", "b"])
    held = json.loads(json.dumps(found.to_dict()))
    assert held == {
        "size": 0.25, "steps": 2, "places": [4], "notes": ["Hi!"], "words": ["a", "b"],
        "hidden": False,
    }  # fmt: skip
    assert Settings.from_dict(held) == found
    assert Settings.from_dict({}) == Settings()


def test_of_private_texts_only_the_number_is_recorded() -> None:
    found = Settings(notes=["Hi!"], words=["a", "b"])
    recorded = found.to_dict(private=False)
    assert (recorded["notes"], recorded["words"]) == (1, 2)
    again = Settings.from_dict(recorded)
    assert (again.notes, again.words) == (Withheld(1), Withheld(2))
    assert again.to_dict() == again.to_dict(private=False) == recorded
    # None at all is known.
    assert Settings.from_dict(Settings().to_dict(private=False)) == Settings()


def test_keys_of_earlier_versions_are_understood() -> None:
    assert Settings.from_dict({"turns": 7}).steps == 7
    with pytest.raises(ArgumentError, match="turns: is no parameter"):
        Settings.of(None, {"turns": 7})


@pytest.mark.parametrize(
    ("name", "near"),
    [("stps", "steps"), ("word", "words"), ("zzz", "size, steps, places, notes")],
)
def test_unknown_names_say_what_may_be_meant(name: str, near: str) -> None:
    match = rf"{name}: is no parameter; did you mean {near}"
    for make in (Settings.from_dict, lambda values: Settings.of(None, values)):
        with pytest.raises(ArgumentError, match=match):
            make({name: 1})


def test_one_configuration_or_parameters_not_both() -> None:
    config = Settings(steps=5)
    assert Settings.of(config, {}) is config
    assert Settings.of(None, {"steps": 5}) == config
    with pytest.raises(ArgumentError, match="config: got one beside steps; give eith"):
        Settings.of(config, {"steps": 5})
    with pytest.raises(ArgumentError, match="config: got list; expected Settings"):
        Settings.of(["bomb"], {})  # type: ignore[arg-type]


WRONG: list[tuple[Any, list[Any], str]] = [
    (Positive(), [0, -1, math.nan, math.inf, "x", None, [1.0]], "a positive number"),
    (Positive(), [True], "a positive number"),
    (Share(), [True, False], "a number from 0 to 1"),
    (Whole(), [True, False], "a whole number from 0 on"),
    (Positive(zero=True), [-1, math.nan, "x"], "a number from 0 on"),
    (Scale(), [0.0, -1, 9e-13, 1e308, math.nan, "x"], "number"),
    (Scale(), [9e-13, 2e12, 5e-324, 1e300], "a number from 1e-12 to 1e+12"),
    (Scale(zero=True), [5e-324, 1e308], "0 or a number from 1e-12 to 1e+12"),
    (Share(), [-0.1, 1.1, math.nan, "x", None], "a number from 0 to 1"),
    (Whole(least=1), [0, 1.5, 2.0, "x", None, [1]], "a whole number from 1 on"),
    (Flag(), [0, "yes", None], "True or False"),
    (Choice(names=("a", "b")), ["c", 1, None, ["a"]], "one of 'a', 'b'"),
    (Auto(Positive(), "a positive number"), [0.0, "no"], '"auto" or a positive number'),
    (Optional(Positive()), [0.0, "x"], "a positive number"),
    (Texts(), ["bomb", 5, None, ["a", " "], ["a", 3]], "texts"),
    (Texts(least=2), [[], ["a"]], "a list of texts, 2 or more"),
    (
        Layers(),
        [7, "all", {1: 2}, [1.5], ["1"], None, [1, 1], [2, -1, np.int64(2)]],
        "layer indices, none twice",
    ),
    (
        Pair(),
        [1.0, (1.0,), (0.0, math.nan), "ab", (1, 2, 3), (True, 1), ["1", "2"]],
        "two numbers",
    ),
]


@pytest.mark.parametrize(("range", "values", "expected"), WRONG, ids=lambda v: None)
def test_values_out_of_range_name_parameter_got_and_expected(
    range: Any, values: list[Any], expected: str
) -> None:
    for value in values:
        with pytest.raises(ArgumentError) as error:
            range.check("it", value)
        message = str(error.value)
        assert message.startswith("it: got ")
        assert expected in message.partition("; expected ")[2]


PARSED: list[tuple[Any, str, Any]] = [
    (Positive(), "2.5", 2.5),
    (Positive(zero=True), "0", 0.0),
    (Scale(), "1e12", 1e12),
    (Scale(zero=True), "0", 0.0),
    (Share(), "0.1", 0.1),
    (Whole(), "0", 0),
    (Flag(), "yes", True),
    (Flag(), "no", False),
    (Choice(names=("a", "b")), "b", "b"),
    (Auto(Positive(), "a positive number"), "auto", "auto"),
    (Auto(Positive(), "a positive number"), "3", 3.0),
    (Optional(Positive(), word="none"), "none", None),
    (Layers(), "26-29", (26, 27, 28, 29)),
    (Layers(), "3,7,-1", (3, 7, -1)),
    (Pair(), "-0.5", -0.5),  # One of its two values.
]


@pytest.mark.parametrize(("range", "text", "value"), PARSED)
def test_command_lines_are_read(range: Any, text: str, value: Any) -> None:
    assert range.parse(text) == value
    assert range.metavar
    assert range.values == (2 if isinstance(range, Pair) else 1)


@pytest.mark.parametrize(
    ("range", "texts", "expected"),
    [
        (Positive(), ["0", "-1", "nan", "inf", "x"], "a positive number"),
        (Positive(zero=True), ["-1"], "a number from 0 on"),
        (Scale(), ["0", "1e308", "1e-320", "nan"], r"a number from 1e-12 to 1e\+12"),
        (Share(), ["x", "nan", "1.5"], "a number from 0 to 1"),
        (Whole(least=1), ["0", "1.5", "-3", "x", "1" * 10], "a whole number from 1"),
        (Flag(), ["true", "1"], "yes or no"),
        (Choice(names=("a", "b")), ["c"], "one of a, b"),
        (Auto(Layers(), "layers"), ["9-3", "1.5", "x"], "layers such as 26-29"),
        (Optional(Positive()), ["None"], "a positive number"),
    ],
)
def test_command_lines_that_cannot_be_read_say_what_is_expected(
    range: Any, texts: list[str], expected: str
) -> None:
    for text in texts:
        with pytest.raises(ValueError, match=expected):
            range.parse(text)


@given(
    st.floats(min_value=0.0, exclude_min=True, allow_infinity=False),
    st.integers(1, 2**63 - 1),
)
def test_numbers_in_range_come_back_bit_for_bit(size: float, steps: int) -> None:
    found = Settings(size=size, steps=steps)
    assert Settings.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    assert (found.size, found.steps) == (size, steps)


@given(st.lists(st.integers(), unique=True), st.lists(st.text().filter(str.strip)))
def test_layers_and_texts_come_back(layers: list[int], texts: list[str]) -> None:
    found = Settings(places=layers, words=texts, notes=iter(texts))
    assert found.places == tuple(layers)
    assert found.words == found.notes == tuple(texts)
    assert Settings.from_dict(json.loads(json.dumps(found.to_dict()))) == found
