# SPDX-License-Identifier: Apache-2.0
"""The one call for all methods: a configuration, or parameters by name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from support.characters import Characters

pytest.importorskip("torch")
pytest.importorskip("transformers")

from support.interventions import random_intervention

import cintervene as ci
from cintervene import defend
from cintervene.errors import ArgumentError
from cintervene.methods.account import Account
from cintervene.methods.config import MethodConfig
from cintervene.methods.registry import (
    Method,
    all_methods,
    find_method,
    method_of,
    register,
    unregister,
)
from cintervene.utils.parameters import parameter
from cintervene.utils.ranges import Whole, Withheld


@dataclass(frozen=True, kw_only=True)
class EchoConfig(MethodConfig):
    """A method that changes anything, and says how it was called."""

    method: ClassVar[str] = "echo"

    times: int = parameter(Whole(least=1), 1, "how often")


def solve(model: Any, tokenizer: Any, config: EchoConfig, progress: Any) -> Any:
    """What a method's folder has in its `method.py`."""
    progress("echoing", config.times, config.times)
    options = config.to_dict(private=False)
    return random_intervention(model, options=options)


def account(options: Any) -> Account:
    """What a method's folder has in its `account.py`."""
    return Account("Echoed {times} times.", "At once.", "", ())


@pytest.fixture
def echo() -> Iterator[Method]:
    method = Method(EchoConfig, f"{__name__}:solve", "echo", account)
    register(method)
    yield method
    unregister("echo")


@pytest.fixture
def tiny(tiny_model: Any) -> tuple[Any, Any]:
    return tiny_model("llama"), Characters()


def test_the_methods_are_registered_in_the_order_of_the_documentation() -> None:
    assert list(all_methods()) == ["pcr", "tsr", "arr", "gate"]
    for name, method in all_methods().items():
        assert method.name == name == method.config.method
        assert method.about
        assert callable(method.load())
        assert isinstance(method.account({"method": name}), Account)
        assert find_method(name) is method


def test_a_new_method_is_a_configuration_and_a_registration(
    echo: Method, tiny: Any
) -> None:
    assert all_methods()["echo"] is echo
    assert method_of(EchoConfig(times=3)) is echo
    calls: list[Any] = []
    found = defend(
        *tiny, EchoConfig(times=3), progress=lambda *call: calls.append(call)
    )
    assert (found.options["method"], found.options["times"]) == ("echo", 3)
    assert calls == [("echoing", 3, 3)]
    assert defend(*tiny, method="echo", times=3).options == found.options
    with pytest.raises(ArgumentError, match=r"times: is no parameter of method 'pcr' "):
        defend(*tiny, times=3, forbid=["bomb"])


def test_a_name_is_registered_once(echo: Method) -> None:
    register(echo)  # The same again, as when a module is imported anew.
    other = Method(EchoConfig, "elsewhere:solve", "echo", account)
    with pytest.raises(ArgumentError, match="method: got a second one named 'echo'"):
        register(other)


def test_every_parameter_is_documented_with_its_configuration() -> None:
    for method in all_methods().values():
        documented = " ".join(one.__doc__ or "" for one in method.config.__mro__)
        assert [n for n in method.config.names() if n not in documented] == []
        assert method.config.__name__ in (defend.__doc__ or "")


@pytest.mark.parametrize(
    ("given", "match"),
    [
        (
            {"method": "tsr", "harmfull": ["How?"]},
            r"harmfull: is no parameter of method 'tsr'; did you mean harmful\?",
        ),
        (
            {"method": "tsr", "nats": 3.0},
            r"nats: is no parameter of method 'tsr' \(but of 'arr'\); did you mean",
        ),
        (
            {"method": "gate", "matrix": "o_proj"},
            r"matrix: is no parameter of method 'gate' \(but of 'pcr', 'tsr', 'arr'\)",
        ),
        (
            {"method": "tsr", "forbid": ["bomb"]},
            r"forbid: is no parameter of method 'tsr' \(but of 'pcr'\)",
        ),
        ({"forbid": ["bomb"], "max_benign_los": 0.1}, r"did you mean max_benign_loss"),
        ({"forbid": ["bomb"], "zzz": 0.1}, r"did you mean layers, preserve, max_kl"),
        ({"method": "magic"}, r"method: got 'magic'; expected one of 'pcr', 'tsr'"),
        ({"method": "pcr"}, r"forbid, examples, harmful: got none; expected exactly"),
    ],
)
def test_unknown_parameters_name_what_may_be_meant(
    tiny: Any, given: dict[str, Any], match: str
) -> None:
    with pytest.raises(ArgumentError, match=match):
        defend(*tiny, **given)


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"max_kl": 0.1}, "max_kl"),
        ({"method": "tsr"}, "method"),
        ({"method": "tsr", "steps": 3}, "method, steps"),
    ],
)
def test_a_configuration_comes_alone(
    tiny: Any, given: dict[str, Any], names: str
) -> None:
    match = f"config: got one beside {names}; give either a configuration or the param"
    with pytest.raises(ArgumentError, match=match):
        defend(*tiny, ci.TSRConfig(), **given)


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (["bomb"], "list"),
        ("gate", "str"),
        (ci.GuardConfig(forbid=["a"]), "GuardConfig"),
    ],
)
def test_what_is_no_configuration_is_named(tiny: Any, config: Any, kind: str) -> None:
    match = f"config: got {kind}; expected one of PCRConfig, TSRConfig, ARRConfig, Gate"
    with pytest.raises(ArgumentError, match=match):
        defend(*tiny, config)


@pytest.mark.parametrize(
    ("config", "name", "count"),
    [
        (ci.TSRConfig(harmful=Withheld(3)), "harmful", 3),  # type: ignore[arg-type]
        (ci.GateConfig(preserve=Withheld(7)), "preserve", 7),  # type: ignore[arg-type]
        (ci.PCRConfig(examples=Withheld(4)), "examples", 4),  # type: ignore[arg-type]
    ],
)
def test_texts_that_were_not_recorded_have_to_be_given_again(
    tiny: Any, config: Any, name: str, count: int
) -> None:
    match = (
        rf"{name}: got only their number, {count}, .* give the texts again, e\.g\. "
        rf"dataclasses\.replace\(config, {name}=texts\)"
    )
    with pytest.raises(ArgumentError, match=match):
        defend(*tiny, config)
    assert len(getattr(config, name)) == count


def test_the_guard_takes_a_configuration_or_words(tiny: Any) -> None:
    with pytest.raises(ArgumentError, match="config: got list; expected GuardConfig"):
        ci.Guard(*tiny, ["bomb"])  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="config: got one beside strength; give"):
        ci.Guard(*tiny, ci.GuardConfig(forbid=["bomb"]), strength=3.0)
    with pytest.raises(
        ArgumentError, match=r"stren: is no parameter of the guard; did"
    ):
        ci.Guard(*tiny, forbid=["bomb"], stren=3.0)


@pytest.mark.parametrize("name", list(all_methods()))
@pytest.mark.parametrize("layers", [[1, 1], [1, -1]])
def test_no_layer_is_named_twice(tiny_model: Any, name: str, layers: Any) -> None:
    model, tokenizer = tiny_model("llama", num_hidden_layers=2), Characters()
    what = {"forbid": ["bomb"]} if name == "pcr" else {"harmful": ["Say a bad thing"]}
    for call in (ci.defend, ci.plan):
        given = (model, tokenizer) if call is ci.defend else (model,)
        with pytest.raises(ArgumentError, match=r"layers: got .* twice"):
            call(*given, method=name, layers=layers, **what)
