# SPDX-License-Identifier: Apache-2.0
"""What several commands take, and how values are read."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from cintervene.errors import ArgumentError
from cintervene.utils.homes import expanded
from cintervene.utils.ranges import Options, Positive

if TYPE_CHECKING:
    from cintervene.utils.ranges import Range

__all__ = [
    "EPILOG",
    "Parser",
    "add_beyond_limits",
    "add_common",
    "add_device",
    "add_intervention",
    "add_json",
    "add_model",
    "add_obedience_loss",
    "add_out",
    "add_rank_timeout",
    "add_report",
    "add_template_options",
    "place",
    "reader",
]

# How a value begins that flags cannot be mistaken for, which begin with a letter.
NEGATIVE = re.compile(r"-(\.?\d|(inf(inity)?|nan)$)", re.IGNORECASE)

EPILOG = """\
exit codes: 0 done; 1 done, but a goal was not reached (under torchrun that is 0, see
report.json), or limits were crossed and so nothing was written; 2 wrong usage; 3 a
file, a model, the network or another process failed; 130 interrupted. Whatever the
code, nothing is left half written.
"""
# That of `Goals`, which cannot be asked: its package imports torch.
OBEDIENCE_LOSS = 0.03
# torch's own.
RANK_TIMEOUT = 1800.0
MODEL = (
    "smollm2 or gemma3-270m (fetched once), a directory with safetensors, a .gguf "
    "file, or with --hub a name on the hub (default: %(default)s)"
)


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the whole usage before it.

    What begins as a negative number does, such as ``-1e3`` or ``-2,-1``, is a value:
    argparse would take it for a flag, unless it is plain digits.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._negative_number_matcher = NEGATIVE

    def error(self, message: str) -> NoReturn:
        """Exit with code 2."""
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def add_model(parser: Parser) -> None:
    """Add the model that a command is about."""
    parser.add_argument("--model", default="smollm2", metavar="MODEL", help=MODEL)


def add_common(parser: Parser, dtype: str = "--dtype") -> None:
    """Add what all commands take; `dtype` is the flag for the model's type."""
    parser.add_argument(
        dtype,
        dest="model_dtype",
        choices=("auto", "float32", "bfloat16", "float16"),
        default="auto",
        help="type to load the model in (default: as config.json says, bfloat16 for a "
        ".gguf file); files are changed in the types that they hold",
    )
    parser.add_argument(
        "--hub", action="store_true", help="look the model up on the hub"
    )
    add_json(parser)


def add_json(parser: Parser) -> None:
    """Add the form of what is printed."""
    parser.add_argument(
        "--json", action="store_true", help="print the result as JSON on stdout"
    )


def add_out(parser: Parser, about: str, required: bool = True) -> None:
    """Add the directory for results."""
    parser.add_argument(
        "--out", type=place, required=required, metavar="DIR", help=about
    )


def add_device(parser: Parser) -> None:
    """Add the device that the model runs on."""
    parser.add_argument(
        "--device",
        default="cpu",
        metavar="DEVICE",
        help="cpu, or what torch calls another, such as cuda (default: %(default)s)",
    )


def add_rank_timeout(parser: Parser) -> None:
    """Add how long processes that torchrun started wait for each other."""
    parser.add_argument(
        "--rank-timeout",
        type=reader([Positive()]),
        default=RANK_TIMEOUT,
        metavar="SECONDS",
        help="under torchrun: give up a process that others wait for so long (default: "
        "%(default)s)",
    )


def add_intervention(parser: Parser, required: bool = True) -> None:
    """Add the file of an intervention."""
    parser.add_argument(
        "--intervention",
        type=place,
        required=required,
        metavar="FILE",
        help="intervention.safetensors of a defence",
    )


def add_report(parser: Parser) -> None:
    """Add the report that a model card quotes."""
    parser.add_argument(
        "--report",
        type=place,
        metavar="FILE",
        help="report.json for the model card (default: that beside the intervention)",
    )


def add_template_options(
    parser: Parser,
    otherwise: str = "all modes that the template has; in a study its own mode",
) -> None:
    """Add what the chat template is given; `otherwise` ends the help."""
    parser.add_argument(
        "--template-options",
        type=reader([Options()]),
        metavar="OPTIONS",
        help="what to give the chat template, such as enable_thinking=false or a JSON "
        f"object (default: what the intervention was made with, or else {otherwise})",
    )


def add_beyond_limits(parser: argparse._ActionsContainer) -> None:
    """Add leave to write a change that crossed its limits."""
    parser.add_argument(
        "--beyond-limits",
        action="store_true",
        help="write a change even if it crossed the limits it was made within, on "
        "material set aside",
    )


def add_obedience_loss(
    parser: argparse._ActionsContainer,
    condition: str = "",
    default: float | None = OBEDIENCE_LOSS,
) -> None:
    """Add the goal that is no parameter of a method; `condition` comes before help."""
    parser.add_argument(
        "--max-obedience-loss",
        type=reader([Positive()]),
        default=default,
        metavar="SHARE",
        help=f"{condition}requests for benign words that are no longer obeyed "
        f"(default: {OBEDIENCE_LOSS})",
    )


def place(text: str) -> Path:
    """Read a path; ``~`` is the home directory, which shells leave behind a ``=``.

    An empty one, such as that of a variable that is not set, would be the directory
    that the command runs in.
    """
    try:
        if text.strip():
            return expanded(text)
    except ArgumentError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    raise argparse.ArgumentTypeError(f"got {text!r}, expected a path")


def reader(ranges: Sequence[Range]) -> Callable[[str], Any]:
    """Return what reads a value that is in one of some ranges, the first that fits."""

    def read(text: str) -> Any:
        reasons = []
        for one in ranges:
            try:
                return one.parse(text)
            except ValueError as error:
                reasons.append(str(error))
        raise argparse.ArgumentTypeError(f"got {text!r}, expected {reasons[0]}")

    return read
