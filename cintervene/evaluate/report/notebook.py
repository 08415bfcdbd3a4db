# SPDX-License-Identifier: Apache-2.0
"""What a notebook shows of a measurement: the tables that a terminal gets."""

from __future__ import annotations

from collections.abc import Iterable

from cintervene.evaluate.report.request_table import request_sections
from cintervene.evaluate.report.table import Section
from cintervene.evaluate.report.word_table import word_sections
from cintervene.evaluate.report.wording import verdict_text
from cintervene.evaluate.requests.measure import RequestMeasurement
from cintervene.evaluate.words.goals import verdicts
from cintervene.evaluate.words.measurement import WordMeasurement
from cintervene.utils.html import html_table

__all__ = ["requests_html", "words_html"]


def words_html(measurement: WordMeasurement) -> str:
    """The default goals, and what changed of words."""
    rows = [
        (v.name, "reached" if v.reached else "missed", verdict_text(v))
        for v in verdicts(measurement)
    ]
    goals = html_table((), rows, caption="Goals")
    return goals + _tables(word_sections(measurement), measurement.level)


def requests_html(measurement: RequestMeasurement) -> str:
    """What changed of requests."""
    return _tables(request_sections(measurement), measurement.level)


def _tables(sections: Iterable[Section], level: float) -> str:
    head = ("", "before", "after", "change", f"{level:.0%} interval")
    return "".join(
        html_table(
            head,
            [(r.label, r.before, r.after, r.effect, r.interval) for r in section.rows],
            (1, 2, 3, 4),
            caption=section.title,
        )
        for section in sections
    )
