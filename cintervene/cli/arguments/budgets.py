# SPDX-License-Identifier: Apache-2.0
"""Flags for how much is calibrated with and measured on."""

from __future__ import annotations

import argparse

from cintervene.cli.arguments.shared import Parser, reader
from cintervene.prompts.calibration_size import CalibrationSize
from cintervene.prompts.evaluation_size import EvaluationSize
from cintervene.prompts.sizes import Size
from cintervene.utils.parameters import parameters

__all__ = ["SIZES", "add_budget", "add_sizes", "size_flag"]

# By what comes before the name of a number in its flag.
SIZES: dict[str, type[Size]] = {
    "calibration": CalibrationSize,
    "evaluation": EvaluationSize,
}


def size_flag(kind: str, name: str) -> str:
    """The flag of a number of a size."""
    return f"--{kind}-{name.replace('_', '-')}"


def add_budget(group: argparse._ActionsContainer, about: str) -> None:
    """Add the name of a budget."""
    group.add_argument(
        "--budget",
        choices=tuple(CalibrationSize.budgets),
        help=f"how much {about}: small for a first look, sooner and with wider "
        "intervals (default: default)",
    )


def add_sizes(parser: Parser, *kinds: str) -> None:
    """Add a flag for each number of some sizes, which is None where it is not given."""
    for kind in kinds:
        group = parser.add_argument_group(f"parts of the budget: {kind}")
        for one in parameters(SIZES[kind]):
            group.add_argument(
                size_flag(kind, one.name),
                type=reader([one.range]),
                metavar=one.range.metavar,
                help=f"{one.help} (default: {one.default}, unless --budget)",
            )
