# SPDX-License-Identifier: Apache-2.0
"""What is said of the changes that gates make."""

from __future__ import annotations

from cintervene.methods.account import (
    DESCENT,
    PACKAGE,
    REFUSED,
    SEARCH,
    Account,
    Options,
)

GATE = Account(
    asked="The model was taught to refuse {harmful:harmful requests} and what is like "
    'them, by saying "{refusal}". That was the aim of a descent, not a constraint that '
    "is met: what was measured says how far it came.",
    found="A few neurons of one MLP were given other rows and columns: their gates are "
    "linear detectors of harmful requests, and what they add was found by {steps} "
    "steps of gradient descent.",
    unproved=DESCENT.format(outcome="refused") + "The detectors are at the minimum of "
    "their own loss, which says nothing of requests they were not fitted to.",
    limits=(
        "The neurons recognise what they were shown. Not every harmful request is "
        "refused, and requests that only sound harmful are refused more often than "
        "before.",
        "In prompts that talk a model out of its rules, or are encoded, harmful "
        "requests are refused less often than plain ones, and harmless ones more "
        "often.",
        "Rows were replaced, so that multiples of the change make no sense: use it as "
        "it is, an adapter at scale 1.",
        PACKAGE,
        SEARCH,
    ),
    settings={
        "opening": "log odds at which neurons open where an answer begins",
        "answering": "log odds at which they open within a prefilled answer",
    },
    measures=REFUSED,
)


def account(_options: Options) -> Account:
    """One account for all of them."""
    return GATE
