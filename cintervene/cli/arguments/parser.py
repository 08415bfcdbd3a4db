# SPDX-License-Identifier: Apache-2.0
"""The parser of the command line; it imports no torch, so that ``--help`` is quick."""

from __future__ import annotations

import argparse

from cintervene.cli.arguments.defend import add_defend
from cintervene.cli.arguments.evaluate import add_evaluate
from cintervene.cli.arguments.others import (
    add_apply,
    add_compare,
    add_explain,
    add_export,
    add_revert,
)
from cintervene.cli.arguments.shared import EPILOG, Parser
from cintervene.version import __version__

__all__ = ["build_parser"]

COMMANDS = (
    add_defend, add_evaluate, add_apply, add_revert, add_export, add_compare,
    add_explain,
)  # fmt: skip


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line.

    What it parses has `command`, and `flags`, those that the command has.
    """
    parser = Parser(
        prog="cintervene",
        description="Safer open-weight language models by the smallest possible change "
        "of their weights.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version", action="version", version=f"cintervene {__version__}"
    )
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", title="commands"
    )
    for add in COMMANDS:
        add(commands)
    for command in commands.choices.values():
        command.set_defaults(flags=frozenset(command._option_string_actions))
    return parser
