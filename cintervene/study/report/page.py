# SPDX-License-Identifier: Apache-2.0
"""The report of a study as one HTML page without other files and scripts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cintervene.study.report.samples import Sample, samples
from cintervene.study.report.sections import Block, Picture, Section, Table, sections
from cintervene.study.results import CaseResult
from cintervene.utils.escaping import html_text

__all__ = ["page"]

# Longest excerpt of an answer; the journal has all of it.
EXCERPT = 1500
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
STYLE = """
:root { color-scheme: light; --ink: #1d2430; --soft: #5b6675; --line: #dfe3e8;
  --paper: #fff; --tint: #f5f7f9; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 68rem; padding: 1.5rem 1rem 4rem; color: var(--ink);
  background: var(--paper); font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 .3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .6rem; padding-top: .6rem;
  border-top: 1px solid var(--line); }
p { max-width: 42rem; }
p.soft, figcaption { color: var(--soft); font-size: .9rem; }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1rem; font-size: .9rem; }
a { color: #0b5cad; }
.scroll { overflow-x: auto; margin: .8rem 0; border: 1px solid var(--line);
  border-radius: .4rem; }
table { border-collapse: collapse; font-size: .88rem; min-width: 100%;
  font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .7rem; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); white-space: nowrap; }
tr:last-child td { border-bottom: 0; }
th { background: var(--tint); font-weight: 600; white-space: normal;
  vertical-align: bottom; min-width: 4.5rem; }
td.number, th.number { text-align: right; }
td:first-child, th:first-child { position: sticky; left: 0; background: var(--paper);
  white-space: normal; min-width: 6.5rem; max-width: 12rem; }
th:first-child { background: var(--tint); }
.settings td { white-space: normal; overflow-wrap: anywhere; min-width: 8rem; }
figure { margin: 1rem 0; max-width: 31rem; }
figure svg { display: block; width: 100%; height: auto; }
.warning { border-left: .3rem solid #d55e00; background: #fdf3ec; padding: .6rem; }
details { border: 1px solid var(--line); border-radius: .4rem; margin: .5rem 0;
  background: var(--paper); }
summary { cursor: pointer; padding: .6rem .8rem; overflow-wrap: anywhere; }
details[open] > summary { border-bottom: 1px solid var(--line); }
details > div { padding: .3rem .8rem .8rem; }
.answers { display: grid; gap: .7rem;
  grid-template-columns: repeat(auto-fit, minmax(min(17rem, 100%), 1fr)); }
.answers h3, .asked h3 { font-size: .85rem; margin: .5rem 0 .2rem; }
pre { margin: 0; padding: .6rem; background: var(--tint); border-radius: .3rem;
  white-space: pre-wrap; overflow-wrap: anywhere; font: .82rem/1.45 ui-monospace,
  monospace; max-height: 22rem; overflow-y: auto; }
.mark { display: inline-block; border-radius: 1rem; padding: 0 .5rem;
  font-size: .78rem; font-weight: 600; border: 1px solid; }
.pair { white-space: nowrap; margin-right: .5rem; font-size: .85rem; }
.refused { color: #00684a; } .complied { color: #a13d00; } .broken { color: #5b6675; }
@media print { details > div { display: none; } body { max-width: none; } }
"""


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
    title = f"Safety evaluation of {content['model']}"
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        f"<title>{html_text(title)}</title><style>{STYLE}</style></head><body>",
        f"<header><h1>{html_text(title)}</h1>",
        f'<p class="soft">{len(content["defences"])} defences, {content["cases"]:,} '
        f"test cases, written {html_text(content['written'])}</p></header>",
        *_contents(chapters),
        "<main>",
    ]
    for section in chapters:
        if section.title == "Limits":
            parts += _answers(samples(cases))
        parts += _section(section, drawn)
    return "\n".join([*parts, "</main></body></html>"]) + "\n"


def _contents(chapters: Sequence[Section]) -> Iterator[str]:
    titles = [section.title for section in chapters]
    titles.insert(titles.index("Limits"), "Answers")
    links = (f'<a href="#{_anchor(title)}">{title}</a>' for title in titles)
    yield f"<nav>{' '.join(links)}</nav>"


def _anchor(title: str) -> str:
    return title.casefold().replace(" ", "-")


def _section(section: Section, drawn: Mapping[str, str]) -> Iterator[str]:
    kind = ' class="settings"' if section.title == "Settings" else ""
    yield f'<section id="{_anchor(section.title)}"{kind}><h2>{section.title}</h2>'
    for block in section.blocks:
        yield from _block(block, drawn)
    yield "</section>"


def _block(block: Block, drawn: Mapping[str, str]) -> Iterator[str]:
    if isinstance(block, Table):
        yield '<div class="scroll" tabindex="0"><table>'
        if any(block.head):
            yield f"<thead>{_row('th', block.head, block.right)}</thead>"
        body = "\n".join(_row("td", row, block.right) for row in block.rows)
        yield f"<tbody>{body}</tbody></table></div>"
    elif isinstance(block, Picture):
        if block.name in drawn:
            caption = f"<figcaption>{html_text(block.caption)}</figcaption>"
            yield f"<figure>{drawn[block.name]}{caption}</figure>"
    else:
        text = re.sub("`([^`]+)`", r"<code>\1</code>", html_text(block))
        yield f"<p>{text}</p>"


def _row(kind: str, cells: Sequence[str], right: Sequence[int]) -> str:
    written = (
        f"<{kind}{' class=number' if at in right else ''}>{html_text(cell)}</{kind}>"
        for at, cell in enumerate(cells)
    )
    return f"<tr>{''.join(written)}</tr>"


def _answers(chosen: Sequence[Sample]) -> Iterator[str]:
    yield '<section id="answers"><h2>Answers</h2>'
    yield (
        '<p class="warning">What opens here are requests for harmful things and what '
        "models answered. Some of it can be dangerous or hurtful.</p>"
        '<p class="soft">Requests on which the defences differ come first; '
        "<code>cases.csv</code> has all answers.</p>"
    )
    for sample in chosen:
        first = sample.cases[0]
        marks = " ".join(
            f'<span class="pair">{html_text(case.defence)} {_mark(case.outcome)}</span>'
            for case in sample.cases
        )
        where = " · ".join((first.suite, first.attack, first.category, first.behaviour))
        yield f"<details><summary>{html_text(where)}<br>{marks}</summary><div>"
        yield f'<div class="asked"><h3>Sent</h3>{_text(first.prompt)}'
        if first.prefill:
            yield f"<h3>Begun for the model</h3>{_text(first.prefill)}"
        yield '</div><div class="answers">'
        for case in sample.cases:
            heading = f"{html_text(case.defence)} {_mark(case.outcome)}"
            yield f"<div><h3>{heading}</h3>{_text(case.answer)}</div>"
        yield "</div></div></details>"
    yield "</section>"


def _mark(outcome: str) -> str:
    return f'<span class="mark {outcome}">{outcome}</span>'


def _text(text: str) -> str:
    cut = text[:EXCERPT] + (" […]" if len(text) > EXCERPT else "")
    # HTML drops a line break right after the tag, so one is added.
    return f'<pre dir="auto">\n{html_text(cut) or "(nothing)"}</pre>'
