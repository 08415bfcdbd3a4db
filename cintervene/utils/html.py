# SPDX-License-Identifier: Apache-2.0
"""Tables of HTML: of pages, and of what notebooks show of an object.

Nothing here has a colour, so that a notebook's own, light or dark, are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from cintervene.utils.escaping import html_text

__all__ = ["html_facts", "html_table"]

# Notebooks align cells to the right unless told otherwise.
LEFT, RIGHT = "text-align:left", "text-align:right"


def html_table(
    head: Sequence[Any],
    rows: Iterable[Sequence[Any]],
    right: Collection[int] = (),
    *,
    cell: Callable[[Any], str] = html_text,
    caption: str = "",
) -> str:
    """Write a table; nothing in it is taken for HTML.

    Parameters
    ----------
    head : sequence
        Left out where all of it is empty.
    rows : iterable of sequence
    right : collection of int
        Columns that hold numbers.
    cell : callable, optional
        Writes what a cell holds as HTML; by default as text.
    caption : str, optional
    """

    def row(kind: str, cells: Sequence[Any]) -> str:
        written = (
            f'<{kind} style="{RIGHT if at in right else LEFT}">{cell(one)}</{kind}>'
            for at, one in enumerate(cells)
        )
        return f"<tr>{''.join(written)}</tr>"

    title = f'<caption style="{LEFT}">{html_text(caption)}</caption>' if caption else ""
    top = f"<thead>{row('th', head)}</thead>" if any(head) else ""
    body = "\n".join(row("td", cells) for cells in rows)
    return f"<table>{title}{top}<tbody>{body}</tbody></table>"


def html_facts(name: str, facts: Iterable[tuple[str, str]]) -> str:
    """Write what is known of one object, a fact to a line, below its name."""
    return html_table((), facts, (1,), caption=name)
