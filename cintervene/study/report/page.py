# SPDX-License-Identifier: Apache-2.0
"""The report of a study as one HTML page without other files and scripts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cintervene.evaluate.report.blocks import (
    Block,
    Exchange,
    Mark,
    Reply,
    Section,
    Warned,
)
from cintervene.evaluate.report.html import html_page
from cintervene.evaluate.requests.outcomes import Outcome
from cintervene.study.report.samples import Sample, samples
from cintervene.study.report.sections import sections
from cintervene.study.results import CaseResult

__all__ = ["page"]

MARKS = {
    Outcome.REFUSED: Mark(Outcome.REFUSED.value, "good"),
    Outcome.COMPLIED: Mark(Outcome.COMPLIED.value, "bad"),
    Outcome.BROKEN: Mark(Outcome.BROKEN.value, "dull"),
}


def page(
    content: Mapping[str, Any], cases: Sequence[CaseResult], drawn: Mapping[str, str]
) -> str:
    """Write the page.

    Parameters
    ----------
    content : mapping
        What `study_content` returned.
    cases : sequence of CaseResult
        Sample answers are taken from them; whatever they contain is shown as text.
    drawn : mapping of str to str
        ``<svg>`` elements by name; pictures that are missing are left out.
    """
    chapters = sections(content)
    answers = Section("Answers", list(_answers(samples(cases))))
    titles = [section.title for section in chapters]
    chapters.insert(titles.index("Limits"), answers)
    about = (
        f"{len(content['defences'])} defences, {content['cases']:,} test cases, "
        f"written {content['written']}"
    )
    return html_page(f"Safety evaluation of {content['model']}", about, chapters, drawn)


def _answers(chosen: Sequence[Sample]) -> Iterator[Block]:
    yield Warned(
        "What opens here are requests for harmful things and what models answered. "
        "Some of it can be dangerous or hurtful."
    )
    yield (
        "Requests on which the defences differ come first; `cases.csv` has all answers."
    )
    for sample in chosen:
        first = sample.cases[0]
        asked = [("Sent", first.prompt)]
        if first.prefill:
            asked.append(("Begun for the model", first.prefill))
        yield Exchange(
            asked,
            [Reply(c.defence, c.answer, MARKS[c.outcome]) for c in sample.cases],
            (first.suite, first.attack, first.category, first.behaviour),
        )
