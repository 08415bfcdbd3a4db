# SPDX-License-Identifier: Apache-2.0
"""The arguments of the commands."""

from __future__ import annotations

import argparse
import math
import re
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from cintervene.version import __version__

EPILOG = """\
exit codes: 0 done; 1 done, but a goal was not reached, or limits were crossed and so
nothing was written; 2 wrong usage; 3 a file, a model or the network failed; 130
interrupted. Whatever the code, nothing is left half written.
"""
EXAMPLES = """\
examples:
  cintervene defend --model smollm2 --forbid obedience --out demo
  cintervene defend --model ./my-model --forbid words.txt --max-kl 0.02 --out result
"""
STUDIES = """\
example of a study, which goes on where it was when it is started again:
  cintervene evaluate --defence pcr/intervention.safetensors,smoothllm,self-reminder \\
    --attacks direct,templates,prefill --behaviours harmbench.csv --safe xstest.csv \\
    --limit 60 --out study
"""
Commands: TypeAlias = "argparse._SubParsersAction[_Parser]"
MODEL = (
    "smollm2 or gemma3-270m (fetched once), a directory with safetensors, a .gguf "
    "file, or with --hub a name on the hub (default: %(default)s)"
)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the whole usage before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


class _Noted(argparse.Action):
    """Stores a value, and that it was given: `check_given` refuses what is not used."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        setattr(namespace, self.dest, values)
        namespace.given = (*getattr(namespace, "given", ()), self.dest)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = _Parser(
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
    _add_defend(commands)
    _add_evaluate(commands)
    _add_apply(commands)
    _add_revert(commands)
    _add_export(commands)
    _add_compare(commands)
    _add_explain(commands)
    return parser


def _command(
    commands: Commands,
    name: str,
    about: str,
    epilog: str = EPILOG,
    one_model: bool = True,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=about,
        description=about[:1].upper() + about[1:] + ".",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if one_model:
        parser.add_argument("--model", default="smollm2", metavar="MODEL", help=MODEL)
    parser.add_argument(
        "--hub", action="store_true", help="look the model up on the hub"
    )
    parser.add_argument(
        "--json", action="store_true", help="print the result as JSON on stdout"
    )
    return parser


def _add_defend(commands: Commands) -> None:
    parser = _command(
        commands,
        "defend",
        "find a small change after which a model says no to words or requests",
        EXAMPLES + "\n" + EPILOG,
    )
    parser.add_argument(
        "--forbid",
        metavar="WORDS",
        help="for pcr: obedience (the package's 100 words), or a UTF-8 file with a "
        "word or phrase on each line, where # begins a comment",
    )
    parser.add_argument(
        "--harmful",
        metavar="REQUESTS",
        help="a UTF-8 file with a request on each line that is to be refused (tsr, "
        "gate) or not to be answered, or own for the package's (default but for pcr)",
    )
    parser.add_argument(
        "--examples",
        action=_Noted,
        type=Path,
        metavar="FILE",
        help="for pcr, in place of --forbid: a UTF-8 file with a sentence on each line "
        "about what is not to come up",
    )
    parser.add_argument(
        "--preserve",
        type=Path,
        metavar="FILE",
        help="a UTF-8 file with a text (pcr) or a request on each line that is to be "
        "left alone, besides the package's own",
    )
    _add_out(parser, "new directory for intervention, report and plots")
    _add_device(parser)
    _add_making(parser.add_argument_group("how the change is made"))
    goals = parser.add_argument_group("goals")
    _add_limits(goals, "pcr: ")
    goals.add_argument(
        "--max-false-refusals",
        action=_Noted,
        type=positive,
        metavar="SHARE",
        help="tsr, arr, gate: benign requests refused in addition (default: 0.03 for "
        "tsr, 0.05 for arr, 0.04 for gate)",
    )
    _add_beyond(goals)
    parser.add_argument(
        "--no-evaluate",
        action="store_true",
        help="with --forbid: skip the measurement on held-out data and its part of the "
        "report",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print what would be changed and forbidden; compute and write nothing",
    )
    parser.set_defaults(given=())


def _add_making(build: argparse._ArgumentGroup) -> None:
    build.add_argument(
        "--concepts",
        action=_Noted,
        choices=("auto", "contrast", "unembedding", "activation", "difference"),
        default="auto",
        help="pcr: what stands for a word or a concept inside the model "
        "(default: %(default)s)",
    )
    build.add_argument(
        "--layers",
        type=layers,
        default="auto",
        metavar="LAYERS",
        help="auto, or layers such as 26-29 or 3,7 (default: auto)",
    )
    build.add_argument(
        "--matrix",
        action=_Noted,
        choices=("down_proj", "o_proj"),
        default="down_proj",
        help="pcr, tsr, arr: the projection of each layer that is changed: the MLP's "
        "or the attention's (default: %(default)s)",
    )
    build.add_argument(
        "--strength",
        action=_Noted,
        type=strength,
        default="auto",
        metavar="NUMBER",
        help="pcr: auto sweeps on words and prompts set aside (default: auto)",
    )
    build.add_argument(
        "--thresholds",
        action=_Noted,
        nargs=2,
        type=number,
        metavar=("OPENING", "ANSWERING"),
        help="gate: log odds at which neurons open where an answer begins, and in "
        "answers that were begun (default: chosen on requests set aside)",
    )
    build.add_argument(
        "--method",
        default="pcr",
        help="pcr: do not say words; tsr: refuse requests; arr: do not answer them; "
        "gate: refuse them by a few neurons "
        "(default: %(default)s)",
    )


def _add_evaluate(commands: Commands) -> None:
    parser = _command(
        commands,
        "evaluate",
        "measure what an intervention does to a model, or attack several defences",
        STUDIES + "\n" + EPILOG,
    )
    _add_intervention(parser, required=False)
    parser.add_argument(
        "--forbid",
        metavar="WORDS",
        help="obedience or a file of words (default: those it was made for)",
    )
    _add_out(
        parser, "new directory for the report, or that of a study to go on with",
        required=False,
    )  # fmt: skip
    _add_device(parser)
    _add_limits(parser.add_argument_group("goals, for --intervention"))
    study = parser.add_argument_group("a study of defences under attack")
    study.add_argument(
        "--defence",
        metavar="LIST",
        help="none, FILE.safetensors or NAME=FILE.safetensors of an intervention, pcr, "
        "tsr or gate to solve one, guard, smoothllm, self-reminder or word-ban, by "
        "commas; several joined by + (default: none, which always takes part)",
    )
    study.add_argument(
        "--attacks",
        metavar="LIST",
        default="direct",
        help="direct, prefill, templates, or a family of them such as 'role play', "
        "gcg, relaxed-pgd, embedding-pgd, by commas (default: %(default)s)",
    )
    study.add_argument(
        "--behaviours",
        type=Path,
        metavar="CSV",
        help="harmful requests, in HarmBench's columns",
    )
    study.add_argument(
        "--safe",
        type=Path,
        metavar="CSV",
        help="harmless requests, as XSTest's",
    )
    study.add_argument(
        "--limit",
        type=whole,
        metavar="N",
        help="requests of each kind, spread evenly over the file (default: all; 60 of "
        "our own with --intervention)",
    )
    study.add_argument(
        "--judge",
        metavar="NAME",
        default="matcher",
        help="matcher, harmbench29, harmbench29=FILE with the phrases of HarmBench, or "
        "a model that is asked: a chat model or a classifier of refusals, as for "
        "--model (default: %(default)s)",
    )
    study.add_argument(
        "--judge-template",
        type=Path,
        metavar="FILE",
        help="what to ask a judge that is a chat model, with {behavior} and "
        "{generation} (default: our own question)",
    )
    study.add_argument(
        "--peers",
        type=Path,
        metavar="JSON",
        help="points of other methods to draw beside the interventions, such as "
        "benchmarks/bench_peers.py writes",
    )
    study.add_argument(
        "--tokens",
        type=whole,
        default=48,
        metavar="N",
        help="length of the answers (default: %(default)s)",
    )
    study.add_argument(
        "--seed", type=int, default=0, metavar="N", help="default: %(default)s"
    )


def _add_apply(commands: Commands) -> None:
    parser = _command(
        commands, "apply", "write a copy of a model with an intervention in its weights"
    )
    _add_intervention(parser)
    _add_out(parser, "new directory for the changed model and its model card")
    _add_report(parser)
    _add_beyond(parser)


def _add_revert(commands: Commands) -> None:
    parser = _command(
        commands, "revert", "write a copy of a changed model with its old weights"
    )
    _add_intervention(parser)
    _add_out(parser, "new directory for the model as it was, to the bit")


def _add_export(commands: Commands) -> None:
    parser = _command(
        commands, "export", "write an intervention in a form that is deployed"
    )
    _add_intervention(parser)
    parser.add_argument(
        "--to",
        choices=("lora", "gguf", "checkpoint"),
        required=True,
        help="a LoRA adapter for peft, one for llama.cpp, or a copy of --model",
    )
    _add_out(parser, "new directory for it and its model card")
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
        "--measure",
        action="store_true",
        help="measure on --model what was read again from the files, on held-out data, "
        "for the model card: words, or else which requests are refused",
    )
    parser.add_argument(
        "--limit",
        type=whole,
        default=60,
        metavar="N",
        help="requests of each kind to measure on (default: %(default)s)",
    )
    _add_report(parser)
    _add_beyond(parser)


def _add_compare(commands: Commands) -> None:
    about = "say which tensors of two models differ, by how much and why"
    parser = _command(commands, "compare", about, one_model=False)
    parser.add_argument("before", metavar="BEFORE", help="a model, as for --model")
    parser.add_argument("after", metavar="AFTER", help="another one")
    parser.add_argument(
        "--intervention",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="one that may explain the differences; can be given several times",
    )


def _add_report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--report",
        type=Path,
        metavar="FILE",
        help="report.json for the model card (default: that beside the intervention)",
    )


def _add_beyond(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--beyond-limits",
        action="store_true",
        help="write a change even if it crossed the limits it was made within, on "
        "material set aside",
    )


def _add_explain(commands: Commands) -> None:
    parser = _command(
        commands, "explain", "say which weights of a model can be changed"
    )
    parser.add_argument(
        "--layers",
        type=layers,
        default="auto",
        metavar="LAYERS",
        help="layers such as 26-29 or 3,7 (default: all)",
    )


def _add_intervention(parser: argparse.ArgumentParser, required: bool = True) -> None:
    parser.add_argument(
        "--intervention",
        type=Path,
        required=required,
        metavar="FILE",
        help="intervention.safetensors of a defence",
    )


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device",
        default="cpu",
        metavar="DEVICE",
        help="cpu, or what torch calls another, such as cuda (default: %(default)s)",
    )


def _add_out(
    parser: argparse.ArgumentParser, about: str, required: bool = True
) -> None:
    parser.add_argument(
        "--out", type=Path, required=required, metavar="DIR", help=about
    )


def _add_limits(group: argparse._ArgumentGroup, words: str = "") -> None:
    """Add what an intervention is held to; `words` comes before what is for words."""
    group.add_argument(
        "--min-effect",
        action=_Noted,
        type=positive,
        default=10.0,
        metavar="RATIO",
        help=f"{words}perplexity of forbidden words, after over before (default: "
        "%(default)s)",
    )
    group.add_argument(
        "--max-kl",
        type=positive,
        default=0.05,
        metavar="NATS",
        help="drift on everyday prompts, a token (default: %(default)s)",
    )
    group.add_argument(
        "--max-benign-loss",
        action=_Noted,
        type=positive,
        default=0.05,
        metavar="SHARE",
        help=f"{words}rise of benign words' perplexity (default: %(default)s)",
    )
    group.add_argument(
        "--max-obedience-loss",
        action=_Noted,
        type=positive,
        default=0.03,
        metavar="SHARE",
        help=f"{words}requests for benign words that are no longer obeyed (default: "
        "%(default)s)",
    )


def layers(text: str) -> str | list[int]:
    """Read "auto", or layer indices and inclusive ranges such as "3,26-29,-1"."""
    if text == "auto":
        return text
    found: list[int] = []
    for part in text.split(","):
        ends = re.fullmatch(r"(\d+)-(\d+)", part.strip())
        if ends and int(ends[1]) <= int(ends[2]):
            found.extend(range(int(ends[1]), int(ends[2]) + 1))
        elif re.fullmatch(r"-?\d+", part.strip()):
            found.append(int(part))
        else:
            raise argparse.ArgumentTypeError(
                f"got {text!r}, expected auto, or layers such as 26-29 or 3,7"
            )
    return found


def whole(text: str) -> int:
    """Read a positive whole number."""
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) == 0:
        raise argparse.ArgumentTypeError(
            f"got {text!r}, expected a whole number from 1 on"
        )
    return int(text)


def positive(text: str) -> float:
    """Read a positive, finite number."""
    value = _finite(text)
    if value is None or not value > 0.0:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a positive number")
    return value


def number(text: str) -> float:
    """Read a finite number."""
    value = _finite(text)
    if value is None:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a number")
    return value


def _finite(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def strength(text: str) -> str | float:
    """Read "auto" or a positive number."""
    return text if text == "auto" else positive(text)
