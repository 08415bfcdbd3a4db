# SPDX-License-Identifier: Apache-2.0
"""The parser of the command line; it imports no torch, so that ``--help`` is quick."""

from __future__ import annotations

import argparse
from importlib import import_module

from cintervene.cli.arguments.shared import EPILOG, Parser, add_common, add_model
from cintervene.version import __version__

__all__ = ["build_parser"]

# By command: what it does, the module and function that add its arguments, and the
# module that runs it.
COMMANDS = {
    "defend": (
        "find a small change after which a model says no to words or requests",
        "defend:defend",
        "defend",
    ),
    "chat": (
        "talk with a model, before and after an intervention, side by side",
        "chat:chat",
        "chat",
    ),
    "evaluate": (
        "measure what an intervention does to a model, or attack several defences",
        "evaluate:evaluate",
        "evaluate",
    ),
    "sweep": (
        "make and measure changes for each words, method, layers and strength",
        "sweep:sweep",
        "sweep",
    ),
    "apply": (
        "write a copy of a model with an intervention in its weights",
        "others:apply",
        "export",
    ),
    "revert": (
        "write a copy of a changed model with its old weights",
        "others:revert",
        "export",
    ),
    "export": (
        "write an intervention in a form that is deployed",
        "others:export",
        "export",
    ),
    "compare": (
        "say which tensors of two models differ, by how much and why",
        "others:compare",
        "compare",
    ),
    "explain": (
        "say which weights of a model can be changed",
        "others:explain",
        "explain",
    ),
    "doctor": (
        "say what is installed, what is missing, and how this machine computes",
        "others:doctor",
        "doctor",
    ),
}
# These say themselves which models they take, if any.
WITHOUT_MODEL = ("compare", "doctor")


def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of the command line.

    What it parses has `command`, `module`, which has its function `run`, and `flags`,
    those that the command has.

    Parameters
    ----------
    command : str, optional
        The only command whose arguments are needed, which saves the time to describe
        the others'; anything else for none. Without it all have theirs.
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
    for name, (about, place, module) in COMMANDS.items():
        one = commands.add_parser(
            name,
            help=about,
            description=about[:1].upper() + about[1:] + ".",
            epilog=EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        one.set_defaults(module=module)
        if command in (None, name):
            _describe(one, name, place)
    return parser


def _describe(parser: Parser, name: str, place: str) -> None:
    """Add the arguments of a command."""
    if name not in WITHOUT_MODEL:
        add_model(parser)
    if name != "doctor":
        # An adapter's factors have a type of their own.
        add_common(parser, "--model-dtype" if name == "export" else "--dtype")
    module, function = place.split(":")
    add = getattr(import_module(f"cintervene.cli.arguments.{module}"), function)
    add(parser)
    parser.set_defaults(flags=frozenset(parser._option_string_actions))
