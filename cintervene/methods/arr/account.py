# SPDX-License-Identifier: Apache-2.0
"""What is said of the changes that ARR makes."""

from __future__ import annotations

from cintervene.methods.account import (
    BALL,
    DESCENT,
    PACKAGE,
    SEARCH,
    STRENGTH,
    Account,
    Options,
)

ARR = Account(
    asked="The model's own answers to {harmful:harmful requests} were made unlikely; "
    "{nats} nats a token were asked for. It was not taught to refuse: what it says "
    "instead is left to it.",
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
    settings=STRENGTH,
    measures={
        "refused": "share of harmful requests whose own answers reach half of the nats "
        "asked"
    },
)


def account(_options: Options) -> Account:
    """One account for all of them."""
    return ARR
