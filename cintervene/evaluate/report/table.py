# SPDX-License-Identifier: Apache-2.0
"""A measurement as a table: what changed and what did not, at a glance."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cintervene.evaluate.statistics.intervals import Estimate
from cintervene.evaluate.statistics.paired import Change
from cintervene.evaluate.words.goals import (
    Goals,
    Verdict,
    side_effects,
)
from cintervene.evaluate.words.records import (
    Obedience,
    Spoken,
)

if TYPE_CHECKING:
    from cintervene.evaluate.words.measurement import WordMeasurement

__all__ = [
    "Row", "Section", "change_row", "kl_row", "lay_out", "number", "sections",
    "text_table", "verdict_text",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """One measure, formatted; what does not apply is empty."""

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


def sections(measurement: WordMeasurement) -> list[Section]:
    """Format all measures."""
    spoken, drift = measurement.forbidden, measurement.drift
    title = f"Forbidden words ({spoken.words})"
    found = [Section(title, [*_places(spoken), *_asked(measurement.obedience)])]
    if measurement.benign is not None:
        title = f"Benign words ({measurement.benign.words})"
        rows = [*_places(measurement.benign), *_asked(measurement.benign_obedience)]
        found.append(Section(title, rows))
    if measurement.related is not None:
        title = f"Related words, not forbidden ({measurement.related.words})"
        found.append(Section(title, list(_anywhere(measurement.related))))
    rows = [
        kl_row(drift.kl, drift.prompts),
        change_row(f"perplexity of prose, {drift.text_tokens:,} tokens", drift.texts),
    ]
    return [*found, Section("Everything else", rows)]


def text_table(measurement: WordMeasurement, goals: Goals) -> str:
    """Lay a measurement out for a terminal."""
    return "\n".join(_lines(measurement, goals))


def verdict_text(verdict: Verdict) -> str:
    """Say what was measured and what was asked for."""
    side = "at least" if verdict.at_least else "at most"
    doubt = "" if verdict.certain else "; too close to be sure"
    value = verdict.measured.value
    measured = f"{value:+.1f}" if verdict.unit == "points" else number(value)
    return f"{measured} {verdict.unit} ({side} {verdict.limit:g}{doubt})"


def number(value: float) -> str:
    """Three digits that count."""
    if abs(value) >= 1e6:
        return f"{value:.2e}"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 0.1 else f"{value:#.3g}"


def _places(spoken: Spoken) -> Iterator[Row]:
    for place in ("starting", "later"):
        name = "said first" if place == "starting" else "said later"
        yield change_row(f"perplexity, {name}", getattr(spoken.all_tokens, place))
        yield change_row("  of the first token", getattr(spoken.first_token, place))


def _anywhere(spoken: Spoken) -> Iterator[Row]:
    yield change_row("perplexity", spoken.all_tokens.together)
    yield change_row("  of the first token", spoken.first_token.together)


def _asked(obedience: Obedience | None) -> Iterator[Row]:
    if obedience is not None:
        yield change_row(f"said when asked, {obedience.requests} times", obedience.rate)


def change_row(label: str, change: Change) -> Row:
    """A measure before and after: as a ratio, or a share and its change in points."""
    if change.kind == "ratio":
        before, after = number(change.before.value), number(change.after.value)
        effect, interval = f"{number(change.effect.value)} x", _range(change.effect)
        return Row(label, before, after, effect, interval)
    points = change.effect.map(lambda rate: 100 * rate)
    low, high = f"{points.low:+.1f}", f"{points.high:+.1f}"
    return Row(
        label, f"{change.before.value:.1%}", f"{change.after.value:.1%}",
        f"{points.value:+.1f} points", f"[{low}, {high}]",
    )  # fmt: skip


def kl_row(kl: Estimate, answers: int) -> Row:
    """Drift on so many answers."""
    label = f"KL, nats a token, {answers} answers"
    return Row(label, "", "", number(kl.value), _range(kl))


def _range(estimate: Estimate) -> str:
    return f"[{number(estimate.low)}, {number(estimate.high)}]"


def lay_out(found: Iterable[Section], level: float) -> Iterator[str]:
    """Lines of sections for a terminal, with a heading; `level` of the intervals."""
    interval = f"{level:.0%} interval"
    yield f"{'':36}{'before':>9}{'after':>9}{'change':>14}  {interval}"
    for section in found:
        yield section.title
        for row in section.rows:
            yield (
                f"  {row.label:34}{row.before:>9}{row.after:>9}{row.effect:>14}"
                f"  {row.interval}"
            ).rstrip()


def _lines(measurement: WordMeasurement, goals: Goals) -> Iterator[str]:
    yield from lay_out(sections(measurement), measurement.level)
    yield "Goals"
    for verdict in measurement.verdicts(goals):
        mark = "reached" if verdict.reached else "MISSED"
        yield f"  {mark:9}{verdict.name}: {verdict_text(verdict)}"
    yield "What it cost"
    for sentence in side_effects(measurement):
        yield f"  {sentence}"
