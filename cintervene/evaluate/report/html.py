# SPDX-License-Identifier: Apache-2.0
"""Reports as one HTML page without other files and scripts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import singledispatch

from cintervene.evaluate.report.blocks import (
    Block,
    Bullets,
    Cell,
    Code,
    Exchange,
    Folded,
    Mark,
    Picture,
    Program,
    Reply,
    Section,
    Table,
    Warned,
)
from cintervene.evaluate.report.style import STYLE
from cintervene.utils.escaping import html_text
from cintervene.utils.html import html_table

__all__ = ["html_page"]

# Longest excerpt of what was sent or answered.
EXCERPT = 1500
POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def html_page(
    title: str,
    about: str,
    sections: Sequence[Section],
    drawn: Mapping[str, str],
) -> str:
    """Write the page; whatever texts contain is shown as text.

    Parameters
    ----------
    title : str
    about : str
        A line below the title.
    sections : sequence of Section
    drawn : mapping of str to str
        ``<svg>`` elements by name; pictures that are missing are left out.
    """
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        f"<title>{html_text(title)}</title><style>{STYLE}</style></head><body>",
        f"<header><h1>{html_text(title)}</h1>",
        f'<p class="soft">{html_text(about)}</p></header>',
        _contents(sections),
        "<main>",
    ]
    for section in sections:
        parts.append(f'<section id="{_anchor(section.title)}">')
        parts.append(f"<h2>{html_text(section.title)}</h2>")
        for block in section.blocks:
            parts += _shown(block, drawn)
        parts.append("</section>")
    return "\n".join([*parts, "</main></body></html>"]) + "\n"


def _contents(sections: Sequence[Section]) -> str:
    links = (
        f'<a href="#{_anchor(s.title)}">{html_text(s.title)}</a>' for s in sections
    )
    return f"<nav>{' '.join(links)}</nav>"


def _anchor(title: str) -> str:
    return re.sub(r"\W+", "-", title.casefold())


def _shown(block: Block, drawn: Mapping[str, str]) -> Iterator[str]:
    if not isinstance(block, Picture):
        yield _block(block)
    elif block.name in drawn:
        caption = f"<figcaption>{html_text(block.caption)}</figcaption>"
        yield f"<figure>{drawn[block.name]}{caption}</figure>"


@singledispatch
def _block(block: Block) -> str:
    raise TypeError(type(block).__name__)


@_block.register
def _(block: str) -> str:
    return f"<p>{_text(block)}</p>"


@_block.register
def _(block: Warned) -> str:
    return f'<p class="warning">{_text(block.text)}</p>'


@_block.register
def _(block: Bullets) -> str:
    points = "".join(f"<li>{_text(point)}</li>" for point in block.points)
    return f"<ul>{points}</ul>"


@_block.register
def _(block: Program) -> str:
    return _pre(block.text)


@_block.register
def _(block: Table) -> str:
    table = html_table(
        block.head, block.rows, block.right, cell=_cell, caption=block.title
    )
    # What explains itself by words may break lines; numbers may not.
    kind = "scroll" if any(block.head) else "scroll settings"
    return f'<div class="{kind}" tabindex="0">{table}</div>'


@_block.register
def _(block: Folded) -> str:
    summary = html_text(block.summary)
    inside = _block(block.table)
    return f"<details><summary>{summary}</summary><div>{inside}</div></details>"


@_block.register
def _(block: Exchange) -> str:
    asked = "".join(
        f"<h3>{html_text(heading)}</h3>{_pre(text)}" for heading, text in block.asked
    )
    replies = "\n".join(
        f"<div><h3>{_who(reply)}</h3>{_pre(reply.text)}</div>"
        for reply in block.replies
    )
    inside = f'<div class="asked">{asked}</div>\n<div class="answers">{replies}</div>'
    if not block.about:
        return f'<div class="exchange">{inside}</div>'
    where = html_text(" · ".join(block.about))
    marks = " ".join(f'<span class="pair">{_who(r)}</span>' for r in block.replies)
    return (
        f"<details><summary>{where}<br>{marks}</summary><div>{inside}</div></details>"
    )


def _who(reply: Reply) -> str:
    mark = "" if reply.mark is None else f" {_cell(reply.mark)}"
    return f"{html_text(reply.who)}{mark}"


def _cell(cell: Cell) -> str:
    if isinstance(cell, Code):
        return f"<code>{html_text(cell.text)}</code>"
    if isinstance(cell, Mark):
        return f'<span class="mark {cell.tone}">{html_text(cell.text)}</span>'
    return html_text(cell)


def _text(text: str) -> str:
    return re.sub("`([^`]+)`", r"<code>\1</code>", html_text(text))


def _pre(text: str) -> str:
    cut = text[:EXCERPT] + (" […]" if len(text) > EXCERPT else "")
    # HTML drops a line break right after the tag, so one is added.
    return f'<pre dir="auto">\n{html_text(cut) or "(nothing)"}</pre>'
