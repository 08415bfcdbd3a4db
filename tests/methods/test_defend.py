# SPDX-License-Identifier: Apache-2.0
"""The one call for all methods shows and checks the options of each."""

from __future__ import annotations

from typing import Any, get_type_hints

import pytest
from support.characters import Characters

pytest.importorskip("torch")
pytest.importorskip("transformers")

from cintervene import defend
from cintervene.errors import ArgumentError
from cintervene.methods.defend import (
    METHODS,
    AvoidingOptions,
    ForbiddingOptions,
    GatingOptions,
    RefusingOptions,
    option_names,
)

TYPES: dict[str, Any] = {
    "pcr": ForbiddingOptions,
    "tsr": RefusingOptions,
    "arr": AvoidingOptions,
    "gate": GatingOptions,
}


@pytest.mark.parametrize("method", METHODS)
def test_types_of_options_are_those_of_the_methods(method: str) -> None:
    declared = get_type_hints(TYPES[method])
    own = get_type_hints(METHODS[method])
    assert declared == {name: own[name] for name in option_names(method)}


@pytest.mark.parametrize("method", METHODS)
def test_every_option_is_documented_for_its_methods(method: str) -> None:
    table = {}
    for line in (defend.__doc__ or "").splitlines():
        if line.strip().startswith("`"):
            name, owners = line.strip()[1:].split("`", 1)
            table[name] = owners
    for name in option_names(method):
        owners = table[name].split("  ")
        assert {"all", method} & {
            o for part in owners for o in part.strip().split(", ")
        }
    for name, owners in table.items():
        if name not in option_names(method):
            assert not owners.strip().startswith(("all", method))


@pytest.mark.parametrize(
    ("given", "match"),
    [
        (
            {"method": "tsr", "harmfull": ["How?"]},
            r"harmfull: is no option of method 'tsr'; did you mean harmful\?",
        ),
        (
            {"method": "tsr", "nats": 3.0},
            r"nats: is no option of method 'tsr' \(but of 'arr'\); did you mean",
        ),
        ({"forbid": ["bomb"], "max_benign_los": 0.1}, r"did you mean max_benign_loss"),
        ({"forbid": ["bomb"], "zzz": 0.1}, r"did you mean examples, harmful, concepts"),
    ],
)
def test_unknown_options_name_what_may_be_meant(
    tiny_model: Any, given: dict[str, Any], match: str
) -> None:
    with pytest.raises(ArgumentError, match=match):
        defend(tiny_model("llama"), Characters(), **given)
