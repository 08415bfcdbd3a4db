# SPDX-License-Identifier: Apache-2.0
"""The arguments of ``cintervene defend``."""

from __future__ import annotations

import argparse

from cintervene.cli.arguments.budgets import add_budget, add_sizes
from cintervene.cli.arguments.parameters import add_parameters
from cintervene.cli.arguments.shared import (
    EPILOG,
    Parser,
    add_beyond_limits,
    add_device,
    add_obedience_loss,
    add_out,
    add_rank_timeout,
    place,
)
from cintervene.methods.registry import DEFAULT_METHOD, all_methods

__all__ = ["defend"]

# All flags would fill the screen.
USAGE = """\
%(prog)s [--model MODEL] [--forbid WORDS | --method METHOD ...]
                         [OPTIONS] --out DIR"""
EXAMPLES = """\
examples:
  cintervene defend --model smollm2 --forbid obedience --out demo
  cintervene defend --model ./my-model --forbid words.txt --max-kl 0.02 --out result
  cintervene defend --method gate --harmful requests.txt --out refusing
  cintervene defend --config demo/config.toml --max-kl 0.02 --out again
"""


def defend(parser: Parser) -> None:
    """Add its arguments: a flag for each parameter of a method, and others."""
    parser.epilog = f"{EXAMPLES}\n{EPILOG}"
    parser.usage = USAGE
    add_out(
        parser,
        "new directory for intervention, report and plots, and for config.toml, which "
        "repeats the run and holds all words and requests in clear",
    )
    add_device(parser)
    add_rank_timeout(parser)
    texts = parser.add_argument_group("what is not to be said, or to be refused")
    main = parser.add_argument_group("how the change is made")
    limits = parser.add_argument_group("goals and limits")
    details = parser.add_argument_group("details, whose defaults are rarely changed")
    _add_method(main)
    add_budget(main, "the change is calibrated with and then measured on")
    add_parameters(
        parser, {"texts": texts, "main": main, "limits": limits, "details": details}
    )
    add_obedience_loss(limits, "with --forbid: ", default=None)
    add_beyond_limits(limits)
    _add_extent(parser)
    add_sizes(parser, "calibration", "evaluation")


def _add_method(group: argparse._ArgumentGroup) -> None:
    about = "; ".join(f"{one.name}: {one.about}" for one in all_methods().values())
    group.add_argument(
        "--method", metavar="METHOD", help=f"{about} (default: {DEFAULT_METHOD})"
    )
    group.add_argument(
        "--config",
        type=place,
        metavar="FILE",
        help="a TOML file with the method and its parameters by name, such as the "
        "config.toml that --out holds afterwards; flags override it",
    )


def _add_extent(parser: Parser) -> None:
    parser.add_argument(
        "--no-evaluate",
        action="store_true",
        help="with --forbid: skip the measurement on held-out data and its part of the "
        "report",
    )
    parser.add_argument(
        "--no-menu",
        action="store_true",
        help="end where everything is written; otherwise, at a terminal, a menu shows "
        "the changes that were tried, to be chatted with and saved",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print what would be changed and forbidden, and how much memory and time "
        "it would take; compute and write nothing",
    )
