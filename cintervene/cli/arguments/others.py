# SPDX-License-Identifier: Apache-2.0
"""The arguments of the commands about interventions that were made, and models."""

from __future__ import annotations

from typing import get_args

from cintervene.cli.arguments.shared import (
    Parser,
    add_beyond_limits,
    add_intervention,
    add_json,
    add_out,
    add_report,
    add_template_options,
    place,
    reader,
)
from cintervene.utils.literals import Matrix
from cintervene.utils.ranges import Auto, Layers, Whole

__all__ = ["apply", "compare", "doctor", "explain", "export", "revert"]


def apply(parser: Parser) -> None:
    """Add the arguments of ``cintervene apply``."""
    add_intervention(parser)
    add_out(parser, "new directory for the changed model and its model card")
    add_report(parser)
    add_beyond_limits(parser)


def revert(parser: Parser) -> None:
    """Add the arguments of ``cintervene revert``."""
    add_intervention(parser)
    add_out(parser, "new directory for the model as it was, to the bit")


def export(parser: Parser) -> None:
    """Add the arguments of ``cintervene export``."""
    add_intervention(parser)
    parser.add_argument(
        "--to",
        choices=("lora", "gguf", "checkpoint"),
        required=True,
        help="a LoRA adapter for peft, one for llama.cpp, or a copy of --model",
    )
    add_out(parser, "new directory for it and its model card")
    parser.add_argument(
        "--base",
        metavar="NAME",
        help="lora: what peft shall look up as the base model; gguf: the .gguf file "
        "that the adapter shall be used on",
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        default="float32",
        help="of an adapter's factors (default: %(default)s)",
    )
    parser.add_argument(
        "--max-rank",
        type=reader([Whole(least=1)]),
        metavar="N",
        help="lora, gguf: cut the change of each weight to this rank; what that costs "
        "is told by --measure (default: as it is)",
    )
    parser.add_argument(
        "--measure",
        action="store_true",
        help="measure on --model what was read again from the files, on held-out data, "
        "for the model card: words, or else which requests are refused",
    )
    parser.add_argument(
        "--limit",
        type=reader([Whole(least=1)]),
        default=60,
        metavar="N",
        help="requests of each kind to measure on (default: %(default)s)",
    )
    add_template_options(parser)
    add_report(parser)
    add_beyond_limits(parser)


def compare(parser: Parser) -> None:
    """Add the arguments of ``cintervene compare``."""
    parser.add_argument("before", metavar="BEFORE", help="a model, as for --model")
    parser.add_argument("after", metavar="AFTER", help="another one")
    parser.add_argument(
        "--intervention",
        type=place,
        action="append",
        default=[],
        metavar="FILE",
        help="one that may explain the differences; can be given several times",
    )


def explain(parser: Parser) -> None:
    """Add the arguments of ``cintervene explain``."""
    parser.add_argument(
        "--layers",
        type=reader([Auto(Layers(), "layer indices")]),
        default="auto",
        metavar="LAYERS",
        help="layers such as 26-29 or 3,7 (default: all)",
    )
    parser.add_argument(
        "--matrix",
        choices=get_args(Matrix),
        default="down_proj",
        help="the projection of each layer: the MLP's or the attention's (default: "
        "%(default)s)",
    )


def doctor(parser: Parser) -> None:
    """Add the arguments of ``cintervene doctor``."""
    add_json(parser)
