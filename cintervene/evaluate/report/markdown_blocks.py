# SPDX-License-Identifier: Apache-2.0
"""Blocks of a report as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

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
    Table,
    Warned,
)
from cintervene.evaluate.report.table import markdown_table
from cintervene.utils.escaping import markdown_code, markdown_text

__all__ = ["markdown_blocks", "markdown_inline"]

# Longest excerpt of what was asked or answered.
EXCERPT = 120
CODE = re.compile("`([^`]+)`")


def markdown_blocks(
    blocks: Iterable[Block], pictures: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Write blocks; what pages fold is shown.

    Parameters
    ----------
    blocks : iterable of Block
    pictures : mapping of str to str, optional
        Files beside the report, by name of the picture.
    """
    for block in blocks:
        yield from _block(block, pictures or {})


def markdown_inline(text: str) -> str:
    """Write a line of text; a pair of backticks makes code, nothing else is markup."""
    parts = CODE.split(text)
    return "".join(
        markdown_code(part) if at % 2 else _between(part)
        for at, part in enumerate(parts)
    )


def _between(text: str) -> str:
    """Text beside code: its spaces there are kept."""
    before = " " * (text[:1].isspace())
    after = " " * (text[-1:].isspace() and bool(text.strip()))
    return f"{before}{markdown_text(text)}{after}"


def _block(block: Block, pictures: Mapping[str, str]) -> Iterator[str]:
    if isinstance(block, str):
        yield markdown_inline(block)
    elif isinstance(block, Warned):
        yield f"> {markdown_inline(block.text)}"
    elif isinstance(block, Bullets):
        yield "\n".join(f"- {markdown_inline(point)}" for point in block.points)
    elif isinstance(block, Program):
        yield f"```{block.language}\n{block.text}\n```"
    elif isinstance(block, Table):
        if block.title:
            yield f"**{markdown_text(block.title)}**"
        head = [markdown_text(one) for one in block.head]
        rows = [[_cell(one) for one in row] for row in block.rows]
        yield markdown_table(head, rows, block.right)
    elif isinstance(block, Exchange):
        yield "\n".join(_exchange(block))
    elif isinstance(block, Picture):
        if block.name in pictures:
            caption = markdown_text(block.caption)
            yield f"![{caption}]({pictures[block.name]})"
            yield f"*{caption}*"
    else:
        assert isinstance(block, Folded)
        yield from _block(replace(block.table, title=block.summary), pictures)


def _cell(cell: Cell) -> str:
    if isinstance(cell, Code):
        return markdown_code(cell.text)
    if isinstance(cell, Mark):
        text = markdown_text(cell.text)
        return f"**{text}**" if cell.tone == "bad" else text
    return markdown_text(cell)


def _exchange(block: Exchange) -> Iterator[str]:
    asked = ", ".join(f"{heading}: {_excerpt(text)}" for heading, text in block.asked)
    yield f"- {asked}"
    for reply in block.replies:
        yield f"  - {markdown_text(reply.who)}: {_excerpt(reply.text)}"


def _excerpt(text: str) -> str:
    """A short excerpt on one line, shown as it is."""
    line = " ".join(text.split())
    if len(line) > EXCERPT:
        line = line[:EXCERPT].rstrip() + " …"
    return markdown_code(line) if line else "(nothing)"
