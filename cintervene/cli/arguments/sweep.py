# SPDX-License-Identifier: Apache-2.0
"""The arguments of ``cintervene sweep``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from cintervene.cli.arguments.budgets import add_budget, add_sizes
from cintervene.cli.arguments.shared import (
    EPILOG,
    Parser,
    add_device,
    add_out,
    add_rank_timeout,
    reader,
)
from cintervene.methods.registry import DEFAULT_METHOD
from cintervene.utils.ranges import Auto, Layers, Scale

__all__ = ["sweep"]

EXAMPLES = """\
example, which goes on where it was when it is started again, and with more values:
  cintervene sweep --forbid words.txt --method pcr:hinge=on,pcr:hinge=off \\
    --layers 27,28 29 --strength 2,4,8 --out sweep
"""
# All flags would fill the screen.
USAGE = """\
%(prog)s [--model MODEL] [--forbid WORDS ...] [--method METHODS]
                        [--layers LAYERS ...] [--strength NUMBERS] [OPTIONS]
                        --out DIR"""


def sweep(parser: Parser) -> None:
    """Add its arguments: the values of each axis, and what all settings share."""
    parser.epilog = f"{EXAMPLES}\n{EPILOG}"
    parser.usage = USAGE
    parser.add_argument(
        "--forbid",
        nargs="+",
        default=["obedience"],
        metavar="WORDS",
        help="obedience or a file of words, or several (default: obedience)",
    )
    parser.add_argument(
        "--method",
        type=lambda text: text.split(","),
        default=[DEFAULT_METHOD],
        metavar="METHODS",
        help="methods that forbid words, by commas, each perhaps with parameters that "
        "defend takes as flags, behind colons: pcr,pcr:hinge=off:max-kl=0.02 (default: "
        f"{DEFAULT_METHOD})",
    )
    parser.add_argument(
        "--layers",
        nargs="+",
        type=reader([Auto(Layers(), "layer indices")]),
        default=["auto"],
        metavar="LAYERS",
        help="layers that are changed together, such as 26-29 or 3,7, or auto; several "
        "by spaces (default: auto)",
    )
    parser.add_argument(
        "--strength",
        type=_strengths,
        default=["auto"],
        metavar="NUMBERS",
        help="strengths by commas; auto chooses one for each setting (default: auto)",
    )
    parser.add_argument(
        "--split",
        choices=("tune", "held_out"),
        default="tune",
        help="what is measured on: tune to choose by the table, held_out to report it "
        "(default: %(default)s)",
    )
    add_out(parser, "directory for the sweep, new or one to go on with")
    add_device(parser)
    add_rank_timeout(parser)
    add_budget(parser, "the changes are calibrated with and then measured on")
    add_sizes(parser, "calibration", "evaluation")


def _strengths(text: str) -> Sequence[object]:
    """Numbers or "auto", by commas."""
    one = Auto(Scale(), Scale().expected)
    try:
        return [one.parse(part.strip()) for part in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"got {text!r}, expected positive numbers such as 2,4,8, or auto"
        ) from error
