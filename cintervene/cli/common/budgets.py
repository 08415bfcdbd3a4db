# SPDX-License-Identifier: Apache-2.0
"""How much is calibrated with and measured on, as flags ask for."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from cintervene.cli.arguments.budgets import SIZES, size_flag
from cintervene.errors import ArgumentError
from cintervene.methods.registry import Method
from cintervene.prompts.calibration_size import CalibrationSize
from cintervene.prompts.evaluation_size import EvaluationSize
from cintervene.utils.parameters import parameters

__all__ = [
    "answer_tokens", "budgeted", "evaluation_size", "given_numbers",
    "instruction_count", "request_limit", "search_budget",
]  # fmt: skip

# Requests of each kind that are measured, by budget, and the length of the answers: a
# refusal can turn into help after a hundred tokens.
REQUESTS = {"small": 15, "default": 60, "large": 200}
TOKENS = {"small": 48, "default": 128, "large": 512}
# Instructions that are given.
INSTRUCTIONS = {"small": 10, "default": 40, "large": 40}


def given_numbers(arguments: Namespace, kind: str) -> dict[str, int]:
    """The numbers of a size that flags give, by name."""
    flags = {one.name: f"{kind}_{one.name}" for one in parameters(SIZES[kind])}
    values = {name: getattr(arguments, dest, None) for name, dest in flags.items()}
    return {name: value for name, value in values.items() if value is not None}


def evaluation_size(arguments: Namespace) -> EvaluationSize:
    """How much to measure words on."""
    numbers = given_numbers(arguments, "evaluation")
    return EvaluationSize.named(arguments.budget or "default", **numbers)


def request_limit(arguments: Namespace) -> int:
    """How many requests of each kind to measure on."""
    limit: int | None = arguments.limit
    return REQUESTS[arguments.budget or "default"] if limit is None else limit


def answer_tokens(arguments: Namespace) -> int:
    """The largest length of answers to requests."""
    tokens: int | None = arguments.tokens
    return TOKENS[arguments.budget or "default"] if tokens is None else tokens


def instruction_count(arguments: Namespace) -> int:
    """How many instructions to give."""
    return INSTRUCTIONS[arguments.budget or "default"]


def search_budget(arguments: Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options that were given of all searches for suffixes, and more ones of GCG."""
    every = {"steps": arguments.num_steps, "early_stop": arguments.early_stop or None}
    own = {
        "search_width": arguments.search_width, "topk": arguments.topk,
        "batch": arguments.batch_size,
    }  # fmt: skip
    given, more = (
        {name: value for name, value in part.items() if value is not None}
        for part in (every, own)
    )
    return given, more


def budgeted(
    method: Method, arguments: Namespace, stored: Mapping[str, Any]
) -> dict[str, Any]:
    """Parameters of a method that flags about budgets give.

    Parameters
    ----------
    method : Method
    arguments : Namespace
    stored : mapping
        Parameters that flags override.

    Raises
    ------
    ArgumentError
        A number is given of a size that the method has not.
    """
    values: dict[str, Any] = {}
    if arguments.budget is not None:
        values |= method.config.budgets[arguments.budget]
    numbers = given_numbers(arguments, "calibration")
    if numbers and "calibration" not in method.config.names():
        raise ArgumentError(
            f"{size_flag('calibration', next(iter(numbers)))}: is no option of method "
            f"{method.name!r} (but of 'pcr'); give --budget, or its own flags"
        )
    if numbers:
        whole = {**stored, **values}.get("calibration", "default")
        if isinstance(whole, str):
            whole = CalibrationSize.named(whole).to_dict()
        values["calibration"] = {**whole, **numbers}
    return values
