# SPDX-License-Identifier: Apache-2.0
"""Every parameter of every configuration: its default, its range, its way to files."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cintervene as ci
from cintervene.errors import ArgumentError
from cintervene.methods.arr.config import Attacks
from cintervene.methods.config import MethodConfig
from cintervene.methods.gate.config import Text
from cintervene.prompts.calibration_size import Sizes
from cintervene.prompts.refusals import Refusals
from cintervene.utils.parameters import Described, parameters
from cintervene.utils.ranges import (
    Auto,
    Choice,
    Exchanges,
    Flag,
    Layers,
    Optional,
    Options,
    Pair,
    Positive,
    Scale,
    Share,
    Texts,
    Whole,
    Withheld,
)

CONFIGS = [ci.PCRConfig, ci.TSRConfig, ci.ARRConfig, ci.GateConfig, ci.GuardConfig]
ALL: list[type[Described]] = [*CONFIGS, ci.CalibrationSize]
# Without which a configuration cannot be made.
NEEDED = {"PCRConfig": {"forbid": ["bomb"]}, "GuardConfig": {"forbid": ["bomb"]}}
EACH = [(config, one) for config in ALL for one in parameters(config)]
EACH_ID = [f"{config.__name__}-{one.name}" for config, one in EACH]


class Attack:
    """An attack that is never made."""

    name = "none"
    options: Mapping[str, Any] = {"steps": 1}

    def suffixed(self, request: str, answer: Sequence[int], seed: int) -> str:
        return request


def make(config: type[Described], **values: Any) -> Any:
    """A configuration with what it cannot be made without."""
    needed = NEEDED.get(config.__name__, {})
    if {"examples", "harmful"} & {n for n, v in values.items() if v is not None}:
        needed = {}
    return config(**{**needed, **values})


NUMBERS = [math.nan, math.inf, "x", [1, 2]]
WRONG: dict[type, Callable[[Any], list[Any]]] = {
    Positive: lambda one: [-1.0, *NUMBERS, *([] if one.zero else [0.0])],
    Scale: lambda one: [9e-13, 2e12, True, *wrong(Positive(zero=one.zero))],
    Share: lambda one: [-0.1, 1.1, *NUMBERS],
    Whole: lambda one: [one.least - 1, one.least + 0.5, *NUMBERS],
    Flag: lambda one: [0, "yes"],
    Choice: lambda one: ["another", 3],
    Auto: lambda one: wrong(one.range),
    Optional: lambda one: wrong(one.range),
    Texts: lambda one: ["one", 5, [" "], [3], *([[]] if one.least else [])],
    Exchanges: lambda one: [
        "ab",
        5,
        [],
        [("a", "b")],
        [("a", " "), (3, "b")] * 2,
        ["ab", "cd"],
        {"ab": "c", "de": "f"},
        [{"prompt": "a", "answer": "b"}] * 2,
        [{"a", "b"}] * 2,
        [("a", "b", "c")] * 2,
    ],
    Layers: lambda one: [7, "all", [1.5], {1: 2}, [1, 1]],
    Options: lambda one: ["thinking", 5, [1], {1: 2}, {"a": object()}],
    Pair: lambda one: [1.0, (1.0,), (0.0, math.nan), "ab"],
    Refusals: lambda one: ["No.", [], [" "], [5], [[-1]], [[1.0]], [[]]],
    Text: lambda one: [" ", 5, ["No."]],
    Sizes: lambda one: [5, {"prompts": 3}],
    Attacks: lambda one: ["GCG", 5],
}


def wrong(range: Any) -> list[Any]:
    """Values that a range does not hold."""
    return WRONG[type(range)](range)


TEXT = st.text().filter(str.strip)
SIZE = st.integers(1, 10**6)
RIGHT: dict[type, Callable[[Any], st.SearchStrategy[Any]]] = {
    Positive: lambda one: st.floats(0.0, 1e300, exclude_min=not one.zero),
    Scale: lambda one: st.floats(1e-12, 1e12) | st.just(0.0 if one.zero else 1.0),
    Share: lambda one: st.floats(0.0, 1.0),
    Whole: lambda one: st.integers(one.least, 10**9),
    Flag: lambda one: st.booleans(),
    Choice: lambda one: st.sampled_from(one.names),
    Auto: lambda one: st.just("auto") | right(one.range),
    Optional: lambda one: st.none() | right(one.range),
    Texts: lambda one: st.lists(TEXT, min_size=max(one.least, 1), max_size=3),
    Exchanges: lambda one: st.lists(
        st.tuples(TEXT, TEXT), min_size=one.least, max_size=one.least + 1
    ),
    Layers: lambda one: st.lists(st.integers(), min_size=1, max_size=4, unique=True),
    Options: lambda one: st.dictionaries(TEXT, st.booleans() | TEXT, max_size=2),
    Pair: lambda one: st.tuples(*[st.floats(-9.0, 9.0)] * 2),
    Refusals: lambda one: st.lists(
        TEXT | st.lists(st.integers(0, 9), min_size=1), min_size=1, max_size=3
    ),
    Text: lambda one: TEXT,
    Sizes: lambda one: st.builds(ci.CalibrationSize, prompts=SIZE, tune_words=SIZE),
    # Of an attack a file has only what was recorded.
    Attacks: lambda one: st.none(),
}


def right(range: Any) -> st.SearchStrategy[Any]:
    """Values that a range holds."""
    return RIGHT[type(range)](range)


@st.composite
def configs(draw: st.DrawFn, config: type[Described]) -> Any:
    """Configurations with some parameters that are not at their default."""
    given = parameters(config)
    chosen = draw(st.lists(st.sampled_from(given), unique_by=lambda one: one.name))
    values = {one.name: draw(right(one.range)) for one in chosen}
    if config is ci.PCRConfig:
        subjects = ["forbid", "examples", "harmful"]
        subject = draw(st.sampled_from(subjects))
        values = {n: v for n, v in values.items() if n not in subjects}
        values[subject] = draw(st.lists(TEXT, min_size=2, max_size=3))
    elif config is ci.GuardConfig:
        values["forbid"] = draw(st.lists(TEXT, min_size=1, max_size=3))
    else:
        values["preserve"] = draw(st.lists(TEXT, min_size=1, max_size=3))
    return config(**values) if config in CONFIGS else config()


@pytest.mark.parametrize(("config", "one"), EACH, ids=EACH_ID)
def test_every_default_is_in_its_range(config: Any, one: Any) -> None:
    assert one.range.check(one.name, one.default) == one.default
    held = one.range.from_json(json.loads(json.dumps(one.range.to_json(one.default))))
    assert one.range.check(one.name, held) == one.default
    if one.flag:
        assert one.range.metavar


@pytest.mark.parametrize(("config", "one"), EACH, ids=EACH_ID)
def test_every_parameter_is_checked_and_named(config: Any, one: Any) -> None:
    values = wrong(one.range)
    assert len(values) > 1
    for value in values:
        with pytest.raises(ArgumentError, match=f"^{one.name}: got .*; expected "):
            make(config, **{one.name: value})


@pytest.mark.parametrize(("config", "one"), EACH, ids=EACH_ID)
def test_every_parameter_is_described(config: Any, one: Any) -> None:
    assert one.help
    assert not one.help.endswith(".")
    documented = " ".join(base.__doc__ or "" for base in config.__mro__)
    assert one.name in documented


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.__name__)
@given(data=st.data())
def test_configurations_come_back_from_json(config: Any, data: st.DataObject) -> None:
    original = data.draw(configs(config))
    held = json.loads(json.dumps(original.to_dict()))
    assert config.from_dict(held) == original
    assert config.from_dict(original.to_dict()) == original


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.__name__)
@given(data=st.data())
def test_what_is_recorded_comes_back_but_for_private_texts(
    config: Any, data: st.DataObject
) -> None:
    original = data.draw(configs(config))
    recorded = original.to_dict(private=False)
    again = config.from_dict(json.loads(json.dumps(recorded)))
    assert again.to_dict(private=False) == recorded
    for one in parameters(config):
        before, after = getattr(original, one.name), getattr(again, one.name)
        if one.private and before:
            assert after == Withheld(len(before))
            again = replace(again, **{one.name: before})
        else:
            assert after == before
    assert again == original


def test_configurations_say_which_method_they_are_of() -> None:
    for config in CONFIGS[:4]:
        assert issubclass(config, MethodConfig)
        held = make(config).to_dict()
        assert held["method"] == config.method
    with pytest.raises(ArgumentError, match="method: got 'arr', expected 'gate' for G"):
        ci.GateConfig.from_dict(ci.ARRConfig().to_dict())


def test_of_an_attack_only_name_and_options_are_recorded() -> None:
    recorded = ci.ARRConfig(attack=Attack()).to_dict(private=False)
    assert recorded["attack"] == {"name": "none", "steps": 1}
    again = ci.ARRConfig.from_dict(recorded)
    assert again.attack == {"name": "none", "steps": 1}
    assert again.to_dict(private=False) == recorded


def test_pcr_takes_one_of_words_examples_and_requests() -> None:
    names = "forbid, examples, harmful: got"
    with pytest.raises(ArgumentError, match=f"{names} none; expected exactly one"):
        ci.PCRConfig()
    with pytest.raises(ArgumentError, match=f"{names} forbid and harmful; expected"):
        ci.PCRConfig(forbid=["bomb"], harmful=["How?"])
    assert ci.PCRConfig(examples=["Bees sting.", "Honey."]).kind == "examples"


@pytest.mark.parametrize(
    ("config", "counts"),
    [
        (ci.TSRConfig, {"answers": 0, "borderline": 0}),
        (ci.ARRConfig, {"answers": 0, "borderline": 0}),
        (ci.GateConfig, {"benign": 0}),
    ],
)
def test_some_prompts_have_to_be_answered_as_before(
    config: Any, counts: dict[str, int]
) -> None:
    names = ", ".join(counts)
    with pytest.raises(ArgumentError, match=f"{names}: got 0 and no preserve=, which"):
        config(**counts)
    assert config(**counts, preserve=["Hi!"]).preserve == ("Hi!",)


def test_the_requests_are_those_given_or_the_package_s_own() -> None:
    assert ci.TSRConfig(harmful=["How?"]).requests == ("How?",)
    own = [prompt.text for prompt in ci.data.harmful_prompts("train")]
    assert list(ci.TSRConfig().requests) == own


@pytest.mark.parametrize(("config", "one"), EACH, ids=EACH_ID)
def test_none_survives_files_that_cannot_hold_it(
    config: type[Described], one: Any
) -> None:
    """TOML has no null: None is the default, or there is a word for it."""
    try:
        given = make(config, **{one.name: None})
    except ArgumentError:
        return
    values = {name: v for name, v in given.to_dict().items() if v is not None}
    assert config.from_dict(values) == given
