# SPDX-License-Identifier: Apache-2.0
"""The arguments of ``cintervene chat``."""

from __future__ import annotations

from cintervene.cli.arguments.shared import (
    EPILOG,
    Parser,
    add_device,
    add_intervention,
    add_template_options,
    reader,
)
from cintervene.utils.ranges import Positive, Whole

__all__ = ["chat"]

EXAMPLES = """\
examples:
  cintervene chat --model smollm2 --intervention demo/intervention.safetensors
  echo "What is a bomb?" | cintervene chat --intervention demo/intervention.safetensors

lines of stdin are questions, or commands such as /after, /strength 0.5, /reset; /help
lists them. On a terminal of 100 columns or more both answers are side by side.
"""


def chat(parser: Parser) -> None:
    """Add its arguments."""
    parser.epilog = f"{EXAMPLES}\n{EPILOG}"
    add_intervention(parser, required=False)
    add_device(parser)
    parser.add_argument(
        "--system", metavar="TEXT", help="the system prompt (default: the template's)"
    )
    parser.add_argument(
        "--max-new-tokens",
        type=reader([Whole(least=1)]),
        default=256,
        metavar="N",
        help="the largest length of an answer (default: %(default)s)",
    )
    parser.add_argument(
        "--temperature",
        type=reader([Positive(zero=True)]),
        default=0.0,
        metavar="T",
        help="draw tokens by their probabilities at this temperature (default: 0, the "
        "likeliest ones)",
    )
    parser.add_argument(
        "--seed",
        type=reader([Whole()]),
        default=0,
        metavar="N",
        help="what answers are drawn from, with --temperature (default: %(default)s)",
    )
    add_template_options(parser, "the template's own mode")
