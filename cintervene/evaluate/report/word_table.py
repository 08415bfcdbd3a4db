# SPDX-License-Identifier: Apache-2.0
"""A measurement of forbidden words as a table: what changed and what did not."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import wrap

from cintervene.evaluate.report.table import (
    Row,
    Section,
    change_row,
    kl_row,
    section_lines,
)
from cintervene.evaluate.report.wording import interval, number, verdict_text
from cintervene.evaluate.words.distribution import distribution, ratio_of
from cintervene.evaluate.words.goals import DEFAULT_GOALS, Goals, side_effects, verdicts
from cintervene.evaluate.words.measurement import WordMeasurement
from cintervene.evaluate.words.records import GroupPerplexity, Obedience, RunningText

__all__ = ["below_goal", "word_sections", "word_table"]


def word_table(measurement: WordMeasurement, goals: Goals = DEFAULT_GOALS) -> str:
    """What changed and what did not, as text for a terminal."""
    return "\n".join(_lines(measurement, goals))


def word_sections(measurement: WordMeasurement) -> list[Section]:
    """Format all measures."""
    forbidden, drift = measurement.forbidden, measurement.drift
    rows = [
        *_by_place(forbidden),
        *_by_word(forbidden),
        *_requested(measurement.obedience),
    ]
    sections = [Section(f"Forbidden words ({forbidden.words})", rows)]
    if measurement.running is not None:
        title = f"Where running text would say them ({measurement.running.words})"
        sections.append(Section(title, list(_unasked(measurement.running))))
    if measurement.elicited:
        rows = [
            change_row(f"{one.strategy}, {one.requests} times", one.rate)
            for one in measurement.elicited
        ]
        sections.append(Section("Said when asked for in other ways", rows))
    if measurement.benign is not None:
        title = f"Benign words ({measurement.benign.words})"
        rows = [
            *_by_place(measurement.benign),
            *_requested(measurement.benign_obedience),
        ]
        sections.append(Section(title, rows))
    if measurement.related is not None:
        title = f"Related words, not forbidden ({measurement.related.words})"
        sections.append(Section(title, list(_together(measurement.related))))
    rows = [
        kl_row(drift.kl, drift.prompts),
        Row(
            "  where no forbidden word is said",
            "",
            "",
            number(drift.kl_elsewhere.value),
            interval(drift.kl_elsewhere),
        ),
        change_row(f"perplexity of prose, {drift.text_tokens:,} tokens", drift.texts),
    ]
    return [*sections, Section("Everything else", rows)]


def _by_place(group: GroupPerplexity) -> Iterator[Row]:
    for place in ("starting", "later"):
        name = "said first" if place == "starting" else "said later"
        yield change_row(f"perplexity, {name}", getattr(group.all_tokens, place))
        yield change_row("  of the first token", getattr(group.first_token, place))


def _together(group: GroupPerplexity) -> Iterator[Row]:
    yield change_row("perplexity", group.all_tokens.together)
    yield change_row("  of the first token", group.first_token.together)


def _by_word(group: GroupPerplexity | RunningText) -> Iterator[Row]:
    found = distribution(group.by_word, 1.0)
    least = f"  least by word ({found.least.word})"
    effects = {"  tenth percentile by word": found.tenth, least: ratio_of(found.least)}
    for label, ratio in effects.items():
        yield Row(label, "", "", f"{number(ratio)} x", "")


def _unasked(running: RunningText) -> Iterator[Row]:
    yield change_row("perplexity", running.all_tokens)
    yield change_row("  of the first token", running.first_token)
    yield from _by_word(running)


def below_goal(measurement: WordMeasurement, goals: Goals) -> list[str]:
    """Forbidden words that moved less than the goal of a word, and by how much."""
    found = distribution(measurement.forbidden.by_word, goals.word_ratio)
    return [f"{word.word} ({number(ratio_of(word))} x)" for word in found.below]


def _requested(obedience: Obedience | None) -> Iterator[Row]:
    if obedience is not None:
        yield change_row(f"said when asked, {obedience.requests} times", obedience.rate)


def _lines(measurement: WordMeasurement, goals: Goals) -> Iterator[str]:
    yield from section_lines(word_sections(measurement), measurement.level)
    yield "Goals"
    for verdict in verdicts(measurement, goals):
        mark = "reached" if verdict.reached else "MISSED"
        yield f"  {mark:9}{verdict.name}: {verdict_text(verdict)}"
    below = below_goal(measurement, goals)
    if below:
        words, least = measurement.forbidden.words, f"{goals.word_ratio:g} x"
        yield f"{len(below)} of {words} words below {least}"
        yield from wrap(
            ", ".join(below), 86, initial_indent="  ", subsequent_indent="  "
        )
    yield "What it cost"
    for sentence in side_effects(measurement):
        yield f"  {sentence}"
