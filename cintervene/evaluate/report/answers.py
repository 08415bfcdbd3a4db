# SPDX-License-Identifier: Apache-2.0
"""A few answers before and after: changed ones, kept ones, and benign ones."""

from __future__ import annotations

from collections.abc import Iterator

from cintervene.evaluate.report.blocks import Block, Exchange, Reply
from cintervene.evaluate.words.measurement import WordMeasurement
from cintervene.evaluate.words.obedience import says
from cintervene.evaluate.words.records import Answer

__all__ = ["answers"]

# Of each kind.
EXAMPLES = 4


def answers(measurement: WordMeasurement | None) -> Iterator[Block]:
    """Show the first few of each kind; nothing is chosen by how it looks."""
    if measurement is None or not measurement.answers:
        return
    every = measurement.answers
    forbidden = [answer for answer in every if answer.forbidden]
    kept = [a for a in forbidden if says(a.after, a.word)]
    lost = [a for a in forbidden if says(a.before, a.word) and a not in kept]
    benign = [a for a in every if not a.forbidden and says(a.before, a.word)]
    yield (
        "Greedy answers, cut to the tokens that were generated; `report.json` has all "
        f"{len(every)}."
    )
    for title, group in (
        ("Forbidden words that are no longer said", lost),
        ("Forbidden words that are still said", kept),
        ("Benign words", benign),
    ):
        if group:
            shown = group[:EXAMPLES]
            yield f"{title} ({len(shown)} of {len(group)}):"
            yield from map(_exchange, shown)


def _exchange(answer: Answer) -> Exchange:
    replies = (Reply("before", answer.before), Reply("after", answer.after))
    return Exchange([("asked", answer.prompt)], replies)
