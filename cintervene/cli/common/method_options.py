# SPDX-License-Identifier: Apache-2.0
"""Options of ``cintervene defend`` that not every method has."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from cintervene.errors import ArgumentError
from cintervene.methods.registry import all_methods, find_method

__all__ = ["check_given", "own_options"]

# Those that are handed on to `models.defend` as they are.
OWN = (
    "concepts", "strength", "min_effect", "max_benign_loss", "max_false_refusals",
    "thresholds", "matrix",
)  # fmt: skip
# Those of the measurement on held-out data, which words alone have.
MEASURED = ("max_obedience_loss", "no_evaluate")
LIMITS = "give --max-kl and --max-false-refusals, within which it is chosen"
# What to do in place of giving an option that the method has not.
INSTEAD = {
    "concepts": "leave it out",
    "strength": LIMITS,
    "min_effect": "leave it out, as much is refused as the limits allow",
    "max_benign_loss": "give --max-false-refusals",
    "max_false_refusals": "give --max-benign-loss",
    "thresholds": LIMITS,
    "matrix": "leave it out, gate, up and down projection are changed",
    "examples": "give --harmful",
}
INSTEAD_OF = {
    ("strength", "gate"): "give --thresholds",
    ("thresholds", "pcr"): "give --strength",
}


def check_given(arguments: Namespace) -> None:
    """Refuse options that were given and would be dropped.

    Raises
    ------
    ArgumentError
        The method has no use for one of them.
    """
    method, given = arguments.method, list(arguments.given)
    if method not in all_methods():
        # `models.defend` names those that there are.
        return
    if arguments.no_evaluate:
        given.append("no_evaluate")
    known = _names(method)
    for name in given:
        if name in MEASURED:
            _check_measured(arguments, name)
        elif name not in known:
            others = [repr(one) for one in all_methods() if name in _names(one)]
            instead = INSTEAD_OF.get((name, method), INSTEAD[name])
            raise ArgumentError(
                f"{_flag(name)}: is no option of method {method!r} (but of "
                f"{', '.join(others)}); {instead}"
            )


def own_options(arguments: Namespace) -> dict[str, Any]:
    """Return the options given that are handed on to the method."""
    found = {name: getattr(arguments, name) for name in OWN if name in arguments.given}
    if "thresholds" in found:
        found["thresholds"] = tuple(found["thresholds"])
    return found


def _check_measured(arguments: Namespace, name: str) -> None:
    """Refuse what is about held-out data where nothing is measured on them."""
    if arguments.method != "pcr" or arguments.forbid is None:
        raise ArgumentError(
            f"{_flag(name)}: is for --method pcr with --forbid, which alone is "
            "measured on held-out data here; leave it out"
        )
    if name != "no_evaluate" and arguments.no_evaluate:
        raise ArgumentError(
            f"{_flag(name)}: is compared with held-out data, which --no-evaluate "
            "skips; leave one of them out"
        )


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _names(method: str) -> list[str]:
    return find_method(method).config.names()
