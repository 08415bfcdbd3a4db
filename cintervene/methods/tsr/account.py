# SPDX-License-Identifier: Apache-2.0
"""What is said of the changes that TSR makes."""

from __future__ import annotations

from cintervene.methods.account import (
    BALL,
    DESCENT,
    PACKAGE,
    REFUSED,
    SEARCH,
    STRENGTH,
    Account,
    Options,
)

TSR = Account(
    asked="The model was taught to refuse {harmful:harmful requests} and what is like "
    "them. That was the aim of a descent, not a constraint that is met: what was "
    "measured says how far it came.",
    found="It was found by {steps} steps of projected gradient descent on refusals of "
    "harmful requests.",
    unproved=DESCENT.format(outcome="refused") + BALL,
    limits=(
        "Not every harmful request is refused, and requests that only sound harmful "
        "are refused more often than before.",
        PACKAGE,
        SEARCH,
    ),
    settings=STRENGTH,
    measures=REFUSED,
)


def account(_options: Options) -> Account:
    """One account for all of them."""
    return TSR
