# SPDX-License-Identifier: Apache-2.0
"""What is said of the changes that PCR makes."""

from __future__ import annotations

from cintervene.methods.account import STRENGTH, UNKNOWN, UNTRAINED, Account, Options

NO_REFUSAL = (
    "It teaches no refusal: what is asked for is answered in another way, most often "
    "with another answer that complies. Against jailbreaks there are the methods tsr "
    "and gate."
)
WORD_LIMITS = (
    "Words become less likely, not impossible: who samples often enough, prefills the "
    "answer or insists can still see one.",
    "Only the words themselves are pushed down, in lower case, capitalised and in "
    "upper case. Misspellings, other inflections, synonyms and translations are not, "
    "and what a text means is not looked at.",
)


def _risen(of: str) -> dict[str, str]:
    """What the measure of the effect means."""
    return {"forbidden_ratio": f"perplexity of {of}, after over before"}


FORBID = Account(
    asked="The model was made less likely to say {count} words: {words}.",
    found=UNTRAINED,
    unproved="",
    limits=WORD_LIMITS,
    settings=STRENGTH,
    measures=_risen("the forbidden words"),
)
EXAMPLES = Account(
    asked="The model was made less likely to say what its authors gave "
    "{examples:examples} of.",
    found=UNTRAINED,
    unproved="",
    limits=(
        "What the examples are about becomes less likely, not impossible, and nothing "
        "is refused: who asks for it can still get it.",
        "The strength was chosen on the quarter of the examples that was held apart, "
        "which is little to choose on.",
    ),
    settings=STRENGTH,
    measures=_risen("the examples held apart"),
)
HARMFUL = Account(
    asked="The model's answers to {harmful:harmful requests} were made less likely. "
    "It was not taught to refuse.",
    found=UNTRAINED,
    unproved="",
    limits=(
        NO_REFUSAL,
        "Within the default limits next to nothing is reached: SmolLM2 complied with "
        "all of 20 held-out requests, as before.",
        "The strength was chosen on the quarter of the requests that was held apart, "
        "which is little to choose on.",
    ),
    settings=STRENGTH,
    measures=_risen("the answers to requests held apart"),
)


def account(options: Options) -> Account:
    """Choose the account by the parameter that says what is forbidden."""
    accounts = {"forbid": FORBID, "examples": EXAMPLES, "harmful": HARMFUL}
    known = (account for name, account in accounts.items() if options.get(name))
    return next(known, UNKNOWN)
