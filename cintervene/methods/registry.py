# SPDX-License-Identifier: Apache-2.0
"""The methods that `defend`, the command, studies and model cards know.

A method is a folder and one call of `register`. Nothing here imports torch: the code of
a method is imported when it is first used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from cintervene.errors import ArgumentError
from cintervene.methods.account import Account, Options
from cintervene.methods.config import MethodConfig

if TYPE_CHECKING:
    from cintervene.intervention.intervention import Intervention

__all__ = [
    "DEFAULT_METHOD",
    "Method",
    "all_methods",
    "find_method",
    "method_of",
    "register",
    "unregister",
]

# Where none is named.
DEFAULT_METHOD = "pcr"


@dataclass(frozen=True)
class Method:
    """One method of `defend`.

    Attributes
    ----------
    config : type of MethodConfig
        Its parameters; the name of the method is `config.method`.
    solve : str
        ``"module:function"`` of what is called as
        ``function(model, tokenizer, config, progress)`` and returns an Intervention.
    about : str
        What it does, in a few words for ``--help``.
    account : callable
        Returns, for recorded options, what model cards say of such a change.
    """

    config: type[MethodConfig]
    solve: str
    about: str
    account: Callable[[Options], Account]

    @property
    def name(self) -> str:
        """How `defend` and the command call it."""
        return self.config.method

    def load(self) -> Callable[..., Intervention]:
        """Import the function that solves it."""
        module, _, function = self.solve.partition(":")
        solve: Callable[..., Intervention] = getattr(import_module(module), function)
        return solve


_methods: dict[str, Method] = {}


def register(method: Method) -> None:
    """Make a method known.

    Raises
    ------
    ArgumentError
        There is another one of that name.
    """
    known = _methods.setdefault(method.name, method)
    if known != method:
        raise ArgumentError(
            f"method: got a second one named {method.name!r}; give it another name"
        )


def unregister(name: str) -> None:
    """Forget a method, such as a test's."""
    del _methods[name]


def all_methods() -> Mapping[str, Method]:
    """The methods by name, in the order of their registration."""
    return dict(_methods)


def find_method(name: object) -> Method:
    """Return the method of that name.

    Raises
    ------
    ArgumentError
        There is none.
    """
    if not (isinstance(name, str) and name in _methods):
        valid = ", ".join(map(repr, _methods))
        raise ArgumentError(f"method: got {name!r}; expected one of {valid}")
    return _methods[name]


def method_of(config: Any) -> Method:
    """Return the method whose parameters these are.

    Raises
    ------
    ArgumentError
        It is no configuration, or its method was not registered.
    """
    for method in _methods.values():
        if type(config) is method.config:
            return method
    valid = ", ".join(method.config.__name__ for method in _methods.values())
    raise ArgumentError(
        f"config: got {type(config).__name__}; expected one of {valid}; words are "
        "given as forbid="
    )
