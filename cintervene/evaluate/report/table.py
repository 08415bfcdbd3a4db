# SPDX-License-Identifier: Apache-2.0
"""Tables of measures before and after, for a terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from cintervene.evaluate.report.wording import interval, number
from cintervene.evaluate.statistics.intervals import Estimate
from cintervene.evaluate.statistics.paired import Change
from cintervene.utils.escaping import markdown_cell

__all__ = [
    "Row", "Section", "change_row", "kl_row", "markdown_table", "section_lines",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """One measure, formatted; cells that do not apply are empty."""

    label: str
    before: str
    after: str
    effect: str
    interval: str


@dataclass(frozen=True, slots=True)
class Section:
    """Measures that belong together."""

    title: str
    rows: list[Row]


def change_row(label: str, change: Change) -> Row:
    """A measure before and after: as a ratio, or a share and its change in points."""
    if change.kind == "ratio":
        before, after = number(change.before.value), number(change.after.value)
        effect = f"{number(change.effect.value)} x"
        return Row(label, before, after, effect, interval(change.effect))
    points = change.effect.map(lambda rate: 100 * rate)
    low, high = f"{points.low:+.1f}", f"{points.high:+.1f}"
    return Row(
        label, f"{change.before.value:.1%}", f"{change.after.value:.1%}",
        f"{points.value:+.1f} points", f"[{low}, {high}]",
    )  # fmt: skip


def kl_row(kl: Estimate, answers: int) -> Row:
    """The KL divergence over this many answers."""
    label = f"KL, nats a token, {answers} answers"
    return Row(label, "", "", number(kl.value), interval(kl))


def section_lines(sections: Iterable[Section], level: float) -> Iterator[str]:
    """Lines of sections for a terminal, with a heading; `level` of the intervals."""
    yield f"{'':36}{'before':>9}{'after':>9}{'change':>14}  {level:.0%} interval"
    for section in sections:
        yield section.title
        for row in section.rows:
            yield (
                f"  {row.label:34}{row.before:>9}{row.after:>9}{row.effect:>14}"
                f"  {row.interval}"
            ).rstrip()


def markdown_table(
    head: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[int] = ()
) -> str:
    """Write a Markdown table; `right` are the columns to align to the right.

    Cells are Markdown: see `markdown_text` for what models and users wrote.
    """
    rule = ["---:" if at in right else "---" for at in range(len(head))]
    return "\n".join(
        "| " + " | ".join(map(markdown_cell, row)) + " |" for row in (head, rule, *rows)
    )
