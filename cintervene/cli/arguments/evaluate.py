# SPDX-License-Identifier: Apache-2.0
"""The arguments of ``cintervene evaluate``."""

from __future__ import annotations

import argparse

from cintervene.cli.arguments.budgets import add_budget, add_sizes
from cintervene.cli.arguments.parameters import add_parameter, owners_of
from cintervene.cli.arguments.shared import (
    EPILOG,
    Parser,
    add_device,
    add_intervention,
    add_obedience_loss,
    add_out,
    add_rank_timeout,
    add_template_options,
    place,
    reader,
)
from cintervene.methods.registry import all_methods
from cintervene.utils.ranges import Whole

__all__ = ["evaluate"]

STUDIES = """\
example of a study, which goes on where it was when it is started again:
  cintervene evaluate --defence pcr/intervention.safetensors,smoothllm,self-reminder \\
    --attacks direct,templates,prefill --behaviours harmbench.csv --safe xstest.csv \\
    --limit 60 --out study
"""
# Limits of methods that a measurement of forbidden words is compared with as well.
GOALS = ("min_effect", "max_kl", "max_benign_loss")


def evaluate(parser: Parser) -> None:
    """Add its arguments: for one intervention, and for a study."""
    parser.epilog = f"{STUDIES}\n{EPILOG}"
    add_intervention(parser, required=False)
    parser.add_argument(
        "--forbid",
        metavar="WORDS",
        help="obedience or a file of words (default: those it was made for)",
    )
    add_out(
        parser, "new directory for the report, or that of a study to go on with",
        required=False,
    )  # fmt: skip
    add_device(parser)
    add_rank_timeout(parser)
    add_template_options(parser)
    parser.add_argument(
        "--split",
        choices=("held_out", "fresh"),
        default="held_out",
        help="of the package's own data; fresh is for the last report alone, and "
        "nothing may be tuned on it (default: %(default)s)",
    )
    add_budget(
        parser, "is measured on, and in a study what methods are calibrated with"
    )
    _add_goals(parser.add_argument_group("goals, for --intervention"))
    parser.add_argument(
        "--tasks",
        metavar="LIST",
        help="tasks of lm_eval to run before and after, by commas, with --limit "
        "examples of each at most; needs the extra ecosystem (default: none)",
    )
    add_sizes(parser, "evaluation")
    study = parser.add_argument_group("a study of defences under attack")
    _add_defences(study)
    _add_requests(study)
    _add_judges(study)


def _add_goals(group: argparse._ArgumentGroup) -> None:
    owners = owners_of()
    for name in GOALS:
        method, one = next(iter(owners[name].items()))
        add_parameter(group, name, {method: one}, default=one.default)
    add_obedience_loss(group)


def _add_defences(study: argparse._ArgumentGroup) -> None:
    methods = ", ".join(all_methods())
    study.add_argument(
        "--defence",
        metavar="LIST",
        help="none, FILE.safetensors or NAME=FILE.safetensors of an intervention, a "
        f"method to solve one with ({methods}), guard, smoothllm, self-reminder or "
        "word-ban, by commas; several joined by + (default: none, which always takes "
        "part)",
    )
    study.add_argument(
        "--attacks",
        metavar="LIST",
        default="direct",
        help="direct, prefill, templates, or a family of them such as 'role play', "
        "'system prompt', 'permissive system prompt', multi-turn, gcg, relaxed-pgd, "
        "embedding-pgd, by commas (default: %(default)s)",
    )
    _add_search(study)
    study.add_argument(
        "--peers",
        type=place,
        metavar="JSON",
        help="points of other methods to draw beside the interventions, such as "
        "benchmarks/bench_peers.py writes",
    )


def _add_search(study: argparse._ArgumentGroup) -> None:
    """Budgets of searches, named as in GCG's and HarmBench's programs."""
    options = {
        "--num-steps": "steps of gcg, relaxed-pgd and embedding-pgd (default: 100, 100 "
        "and 50; papers take 250 to 500 for gcg)",
        "--search-width": "candidates of gcg in each step (default: 128; papers take "
        "512)",
        "--topk": "tokens of each position that gcg draws from (default: 256)",
        "--batch-size": "candidates of gcg in one forward pass; changes no result "
        "(default: 64)",
    }
    for flag, about in options.items():
        study.add_argument(flag, type=reader([Whole(least=1)]), metavar="N", help=about)
    study.add_argument(
        "--early-stop",
        action="store_true",
        help="end each of these searches where the answer begins as wanted, as this "
        "option of nanoGCG does (default: take all steps)",
    )


def _add_requests(study: argparse._ArgumentGroup) -> None:
    study.add_argument(
        "--behaviours",
        type=place,
        metavar="CSV",
        help="harmful requests, in HarmBench's columns or those of another benchmark, "
        "or one a line; own for the package's",
    )
    study.add_argument(
        "--safe",
        type=place,
        metavar="CSV",
        help="harmless requests, likewise, or XSTest's; own for the package's, which "
        "sound harmful",
    )
    study.add_argument(
        "--limit",
        type=reader([Whole(least=1)]),
        metavar="N",
        help="requests of each kind, spread evenly over the file (default: all; 60 of "
        "our own with --intervention, or as --budget says)",
    )
    study.add_argument(
        "--tokens",
        type=reader([Whole(least=1)]),
        metavar="N",
        help="length of the answers (default: 128, or 48 and 512 with --budget small "
        "and large)",
    )
    study.add_argument(
        "--depths",
        type=_depths,
        default=(),
        metavar="LIST",
        help="look at harmful answers that were begun, too, after so many tokens, such "
        "as 0,5,10,20,40 (default: not)",
    )
    study.add_argument(
        "--seed", type=int, default=0, metavar="N", help="default: %(default)s"
    )


def _depths(text: str) -> tuple[int, ...]:
    """Numbers of tokens, each once."""
    one = Whole(least=0)
    try:
        return tuple(dict.fromkeys(one.parse(part) for part in text.split(",")))
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"got {text!r}, expected numbers of tokens such as 0,5,10,20,40"
        ) from error


def _add_judges(study: argparse._ArgumentGroup) -> None:
    study.add_argument(
        "--judge",
        metavar="NAME",
        default="matcher",
        help="matcher, harmbench29, harmbench29=FILE with the phrases of HarmBench, or "
        "a model that is asked: a chat model or a classifier of refusals, as for "
        "--model; of several by commas the first decides, and the report says how far "
        "the others agree (default: %(default)s)",
    )
    study.add_argument(
        "--judge-template",
        type=place,
        metavar="FILE",
        help="what to ask a judge that is a chat model, with {behavior} and "
        "{generation} (default: our own question)",
    )
