# SPDX-License-Identifier: Apache-2.0
"""The files of a study's report."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cintervene.evaluate.report.markdown_blocks import markdown_blocks
from cintervene.study.report.completions import study_completions
from cintervene.study.report.page import page
from cintervene.study.report.sections import sections
from cintervene.study.results import CaseResult, as_csv
from cintervene.utils.escaping import markdown_text
from cintervene.utils.exchange import write_together

__all__ = ["write_study"]


def write_study(
    directory: Path, content: Mapping[str, Any], cases: Sequence[CaseResult]
) -> list[Path]:
    """Write the report in each form, and the answers for HarmBench's own judges.

    That is ``report.html``, ``report.md``, ``report.json``, ``cases.csv`` and what
    `study_completions` returns.

    They replace those of the same names all together or not at all. Pictures need the
    extra `plot` (matplotlib); without it the page has none.

    Parameters
    ----------
    directory : Path
        Must exist.
    content : mapping
        What `study_content` returned.
    cases : sequence of CaseResult

    Raises
    ------
    OSError
        A file cannot be written.
    """
    files = {
        "report.html": page(content, cases, _pictures(content)),
        "report.md": "\n\n".join(_markdown(content)) + "\n",
        "report.json": json.dumps(content, ensure_ascii=False, indent=1) + "\n",
        "cases.csv": as_csv(cases),
    }
    files |= study_completions(cases)
    # Answers can contain lone surrogates, which UTF-8 cannot encode.
    encoded = {name: text.encode("utf-8", "replace") for name, text in files.items()}
    write_together(directory, encoded)
    return [directory / name for name in files]


def _pictures(content: Mapping[str, Any]) -> dict[str, str]:
    if find_spec("matplotlib") is None:
        return {}
    from cintervene.study.report.plots import pictures

    return pictures(content)


def _markdown(content: Mapping[str, Any]) -> Iterator[str]:
    yield f"# Safety evaluation of {markdown_text(content['model'])}"
    yield "Pictures and sample answers are in `report.html`."
    for section in sections(content):
        yield f"## {section.title}"
        yield from markdown_blocks(section.blocks)
