# SPDX-License-Identifier: Apache-2.0
"""The report of an intervention for readers, as Markdown."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from cintervene.evaluate.report.markdown_blocks import markdown_blocks
from cintervene.evaluate.report.sections import Subject, heading, sections
from cintervene.utils.escaping import markdown_text

__all__ = ["markdown"]


def markdown(subject: Subject, pictures: Collection[str]) -> str:
    """Write the report.

    Parameters
    ----------
    subject : Subject
    pictures : collection of str
        Files beside the report that it can show.
    """
    return "\n\n".join(_parts(subject, pictures)) + "\n"


def _parts(subject: Subject, pictures: Collection[str]) -> Iterator[str]:
    files = {Path(name).stem: name for name in pictures}
    yield f"# {markdown_text(heading(subject))}"
    first, *others = sections(subject)
    yield from markdown_blocks(first.blocks, files)
    for section in others:
        yield f"## {section.title}"
        yield from markdown_blocks(section.blocks, files)
    if not pictures:
        yield "There are no pictures: matplotlib (the extra `plot`) is missing."
