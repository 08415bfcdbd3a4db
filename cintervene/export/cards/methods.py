# SPDX-License-Identifier: Apache-2.0
"""What a model card says of each kind of change, and of no other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from inspect import signature
from typing import Any

from cintervene import data
from cintervene.evaluate.report.markdown import LIMITS
from cintervene.methods.defend import METHODS
from cintervene.methods.gate.method import GateOptions
from cintervene.methods.pcr.config import PCROptions
from cintervene.methods.pcr.method import SLACK
from cintervene.methods.tsr.config import TSROptions

__all__ = ["Account", "accounts", "kind_of", "kinds", "recorded", "unreachable"]

Options = Mapping[str, Any]
UNTRAINED = "Nothing was trained."
REVERSIBLE = LIMITS[-1]
# Of what a method teaches to refuse.
PACKAGE = (
    "The package's requests are short and in English. Other kinds of requests, other "
    "languages and longer talks are refused as far as they look alike inside the model."
)
SEARCH = (
    "Who has the weights can search for words, or for a beginning of the answer, after "
    "which a harmful request is answered all the same."
)
NO_REFUSAL = (
    "It teaches no refusal: what is asked for is answered in another way, most often "
    "with another answer that complies. Against jailbreaks there are the methods tsr "
    "and gate."
)
DESCENT = (
    "None, and the method has none to give. The loss of the descent is not convex, so "
    "nothing proves that no smaller change does the same, nor that every request is "
    "{outcome}. "
)
BALL = (
    "What holds by construction is its size: before the strength multiplies it, each "
    "layer's change is within `radius` of its weight, both in the norm of benign "
    "inputs and outputs, or in the plain one where `ball` is frobenius."
)
WORDS_FLAGS = (
    "concepts", "strength", "min_effect", "max_kl", "max_benign_loss",
)  # fmt: skip
REQUESTS_FLAGS = ("max_kl", "max_false_refusals")


class _Told(dict[str, Any]):
    """Options by name; what is not recorded is said to be so."""

    def __missing__(self, name: str) -> str:
        return "an unrecorded number of"


@dataclass(frozen=True)
class Account:
    """What is said of one kind of change; options go where braces name them.

    Attributes
    ----------
    asked : str
        What it was made for.
    found : str
        How it was found.
    unproved : str
        Why there is no certificate; empty where one comes with each layer.
    limits : tuple of str
        What it does not do, that of all changes left out.
    texts : str
        How the command is given what it was made from.
    flags : tuple of str
        Further options that the command takes for it, besides method and layers.
    """

    asked: str
    found: str
    unproved: str
    limits: tuple[str, ...]
    texts: str
    flags: tuple[str, ...]

    def fill(self, text: str, options: Options) -> str:
        """Put the options where a text names them."""
        return text.format_map(_Told(options))


FORBID = Account(
    asked="The model was made less likely to say {count} words: {words}.",
    found=UNTRAINED,
    unproved="",
    limits=LIMITS[:-1],
    texts="--forbid WORDS",
    flags=("matrix", *WORDS_FLAGS),
)
EXAMPLES = Account(
    asked="The model was made less likely to say what its authors gave {examples} "
    "examples of; they are not recorded.",
    found=UNTRAINED,
    unproved="",
    limits=(
        "What the examples are about becomes less likely, not impossible, and nothing "
        "is refused: who asks for it can still get it.",
        "The strength was chosen on the quarter of the examples that was held apart, "
        "which is little to choose on.",
    ),
    texts="--examples FILE",
    flags=("matrix", *WORDS_FLAGS),
)
HARMFUL = Account(
    asked="The model's answers to {harmful} harmful requests were made less likely. "
    "It was not taught to refuse. The requests are not recorded.",
    found=UNTRAINED,
    unproved="",
    limits=(
        NO_REFUSAL,
        "Within the default limits next to nothing is reached: SmolLM2 complied with "
        "all of 20 held-out requests, as before.",
        "The strength was chosen on the quarter of the requests that was held apart, "
        "which is little to choose on.",
    ),
    texts="--harmful FILE",
    flags=("matrix", *WORDS_FLAGS),
)
TSR = Account(
    asked="The model was taught to refuse {harmful} harmful requests and what is like "
    "them; they are not recorded. That was the aim of a descent, not a constraint that "
    "is met: *Measures* say how far it came.",
    found="It was found by {steps} steps of projected gradient descent on refusals of "
    "harmful requests.",
    unproved=DESCENT.format(outcome="refused") + BALL,
    limits=(
        "Not every harmful request is refused, and requests that only sound harmful "
        "are refused more often than before.",
        PACKAGE,
        SEARCH,
    ),
    texts="--harmful REQUESTS",
    flags=("matrix", *REQUESTS_FLAGS),
)
ARR = Account(
    asked="The model's own answers to {harmful} harmful requests were made unlikely; "
    "{nats} nats a token were asked for. It was not taught to refuse: what it says "
    "instead is left to it. The requests are not recorded.",
    found="It was found by {steps} steps of projected gradient descent away from the "
    "model's own answers to harmful requests, the least defended ones first.",
    unproved=DESCENT.format(outcome="left without an answer") + BALL,
    limits=(
        "It teaches no refusal. With SmolLM2 and the package's requests half of "
        "HarmBench's were answered no more, with gibberish in place of an answer, and "
        "the other half were answered as before.",
        PACKAGE,
        SEARCH,
    ),
    texts="--harmful REQUESTS",
    flags=("matrix", *REQUESTS_FLAGS),
)
GATE = Account(
    asked="The model was taught to refuse {harmful} harmful requests and what is like "
    'them, by saying "{refusal}"; they are not recorded. That was the aim of a '
    "descent, not a constraint that is met: *Measures* say how far it came.",
    found="A few neurons of one MLP were given other rows and columns: their gates are "
    "linear detectors of harmful requests, and what they add was found by {steps} "
    "steps of gradient descent.",
    unproved=DESCENT.format(outcome="refused") + "The detectors are at the minimum of "
    "their own loss, which says nothing of requests they were not fitted to.",
    limits=(
        "The neurons recognise what they were shown. Not every harmful request is "
        "refused, and requests that only sound harmful are refused more often than "
        "before.",
        "Of prompts that talk a model out of its rules, or are encoded, about every "
        "second one is refused even if what it asks for is harmless.",
        "Rows were replaced, so that multiples of the change make no sense: use it as "
        "it is, an adapter at scale 1.",
        PACKAGE,
        SEARCH,
    ),
    texts="--harmful REQUESTS",
    flags=REQUESTS_FLAGS,
)
UNKNOWN = Account(
    asked="How the change was made was not recorded.",
    found="How it was found was not recorded.",
    unproved="",
    limits=("What it was made for, and so what it misses, was not recorded.",),
    texts="",
    flags=(),
)
ACCOUNTS = {
    "forbid": FORBID, "examples": EXAMPLES, "harmful": HARMFUL, "tsr": TSR,
    "arr": ARR, "gate": GATE, "": UNKNOWN,
}  # fmt: skip
DETAILS = {
    "pcr": PCROptions, "tsr": TSROptions, "arr": TSROptions, "gate": GateOptions,
}  # fmt: skip


def recorded(options: Options) -> Iterator[Options]:
    """The options of a change, or of those that it was scaled or added from."""
    sources = [options["from"]] if "from" in options else options.get("sum_of")
    if sources is None:
        yield options
        return
    for source in sources:
        yield from recorded(source)


def kind_of(options: Options) -> str:
    """What a change was made of words, examples or requests by; empty if unknown."""
    method = options.get("method", "pcr")
    if method != "pcr":
        return method if method in ACCOUNTS else ""
    kinds = ("forbid", "examples", "harmful")
    return next((kind for kind in kinds if options.get(kind)), "")


def kinds(options: Options) -> list[str]:
    """The kinds of a change and of those that it was scaled or added from."""
    return [kind_of(part) for part in recorded(options)]


def accounts(options: Options) -> list[tuple[Account, dict[str, Any]]]:
    """Return what is said of each part of a change, with the options of that part."""
    found = []
    for part in recorded(options):
        words = part.get("forbid", [])
        known = {"count": len(words), "words": ", ".join(map(str, words))}
        found.append((ACCOUNTS[kind_of(part)], {**part, **known}))
    return found


def unreachable(options: Options) -> dict[str, Any]:
    """Return options that are not the default and that the command does not take."""
    method = options["method"]
    account = ACCOUNTS[kind_of(options)]
    # Keys of `options` that tell how much was given, not how it was used.
    given = {"method", "layers", "forbid", "examples", "harmful", "preserve"}
    default = _defaults(method, options)
    return {
        name: value
        for name, value in options.items()
        if name not in given | {*account.flags} and default.get(name) != value
    }


def _defaults(method: str, options: Options) -> dict[str, Any]:
    own = {
        name: parameter.default
        for name, parameter in signature(METHODS[method]).parameters.items()
    }
    found = own | asdict(DETAILS[method]())
    if method == "pcr" and not options.get("forbid"):
        found["slack"] = SLACK
    if method == "gate":
        found["refusal"] = data.safe_refusals()[0]
    return found
