# SPDX-License-Identifier: Apache-2.0
"""The report of an intervention as sections of text, tables and pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from cintervene.evaluate.capability.measure import Capability
from cintervene.evaluate.report.accounts import accounts, unique
from cintervene.evaluate.report.answers import answers
from cintervene.evaluate.report.blocks import (
    Block,
    Bullets,
    Cell,
    Code,
    Folded,
    Mark,
    Picture,
    Section,
    Table,
    Warned,
)
from cintervene.evaluate.report.capability_table import capability_section
from cintervene.evaluate.report.certificate import certificate
from cintervene.evaluate.report.request_table import request_sections
from cintervene.evaluate.report.sweep_columns import shown_columns
from cintervene.evaluate.report.table import Row
from cintervene.evaluate.report.use import use
from cintervene.evaluate.report.word_table import below_goal, word_sections
from cintervene.evaluate.report.wording import number, value_text, verdict_text
from cintervene.evaluate.requests.measure import RequestMeasurement
from cintervene.evaluate.words.changed_layers import changed_layers
from cintervene.evaluate.words.distribution import distribution, ratio_of
from cintervene.evaluate.words.goals import Goals, side_effects, verdicts
from cintervene.evaluate.words.measurement import WordMeasurement
from cintervene.intervention.acceptance import crossed
from cintervene.intervention.adapter import AdapterIntervention
from cintervene.intervention.intervention import Intervention
from cintervene.intervention.sources import made_for_words
from cintervene.methods.account import REVERSIBLE
from cintervene.methods.pcr.account import WORD_LIMITS

__all__ = ["Subject", "heading", "sections"]

# What templates and texts of a split are called.
SPLITS = {"held_out": "held-out ", "fresh": "frozen, held-out "}
CHANGES = ("", "before", "after", "change", "interval")


@dataclass(frozen=True)
class Subject:
    """What a report is about.

    Attributes
    ----------
    intervention : Intervention
        In the form in which it acts: see `write_report`.
    measurement : WordMeasurement or None
    goals : Goals
    capability : Capability or None
    requests : RequestMeasurement or None
        Of a change that is not about words.
    """

    intervention: Intervention
    measurement: WordMeasurement | None
    goals: Goals
    capability: Capability | None = None
    requests: RequestMeasurement | None = None

    @property
    def words(self) -> Sequence[str]:
        """The forbidden words; none where it was made for something else."""
        if self.measurement is not None:
            return self.measurement.words
        words: Sequence[str] = self.intervention.options.get("forbid") or []
        return words

    @property
    def of_words(self) -> bool:
        """Whether it is about words and nothing else."""
        made = made_for_words(self.intervention.options)
        if self.measurement is not None:
            return self.requests is None
        return all(made) and bool(self.words)


def heading(subject: Subject) -> str:
    """The title of the report."""
    model = subject.intervention.model or "a model"
    if subject.of_words:
        return f"{len(subject.words)} words forbidden on {model}"
    return f"{model}, changed by cintervene"


def sections(subject: Subject) -> list[Section]:
    """The sections of the report, without those that have nothing to say."""
    written = (
        Section("At a glance", list(_opening(subject))),
        Section("Goals", list(_goals(subject))),
        Section("What was changed", list(_layers(subject.intervention))),
        Section("Effect against drift", list(_strength(subject.intervention))),
        Section("Word by word", list(_by_word(subject))),
        Section("Before and after", list(_changes(subject))),
        Section("What it cost", list(_costs(subject.measurement))),
        Section("Answers", list(answers(subject.measurement))),
        Section("Capability", list(_capability(subject.capability))),
        Section("Certificate", list(certificate(subject.intervention))),
        Section("Limits", [Bullets(list(_limits(subject)))]),
        Section("Use", list(use(subject.intervention))),
        Section("Provenance", list(_provenance(subject))),
    )
    return [section for section in written if section.blocks]


def _opening(subject: Subject) -> Iterator[Block]:
    intervention, measurement = subject.intervention, subject.measurement
    beyond = crossed(intervention)
    if beyond is not None:
        yield Warned(f"Limits were crossed: {beyond}.")
    if measurement is not None:
        yield _in_short(measurement)
    if subject.requests is not None:
        yield Bullets(list(_refusals_in_short(subject.requests)))
    layers = changed_layers(intervention)
    largest = max(layer.relative_norm for layer in layers)
    rank = max(layer.rank for layer in layers)
    effect = (
        f", so that the model says {_quoted(subject.words)} less"
        if subject.of_words
        else ""
    )
    yield (
        f"{len(layers)} weight {'matrices were' if len(layers) > 1 else 'matrix was'} "
        f"changed, each by a matrix of rank {rank} or less and of at most "
        f"{largest:.1%} of the weight's norm{effect}. No other weight was touched."
    )
    if not subject.of_words:
        for account, known in accounts(intervention.options):
            yield account.fill(f"{account.asked} {account.found}", known)
    if measurement is not None:
        yield (
            "Everything below was measured before and after on "
            f"{SPLITS.get(measurement.split, '')}templates, "
            "prompts, texts and benign words of the package's "
            f"`{measurement.split}` split, {_form(intervention)}. Intervals are "
            f"{measurement.level:.0%} intervals."
        )
    if subject.requests is not None:
        asked = subject.requests
        yield (
            "Everything below was measured before and after on requests and prompts "
            f"of the package's `{asked.split}` split, with greedy answers of "
            f"{asked.tokens} tokens at most, {_form(intervention)}. Intervals are "
            f"{asked.level:.0%} intervals."
        )
    if measurement is None and subject.requests is None:
        yield (
            "What this did has not been measured on held-out data; "
            "`cintervene evaluate` does that."
        )


def _in_short(measurement: WordMeasurement) -> str:
    """The figures that are asked for first."""
    asked, moved = measurement.obedience, measurement.drift.kl_elsewhere
    before, after = asked.rate.before, asked.rate.after
    text = (
        f"Told to say a forbidden word, the model did so in {before.value:.0%} of "
        f"{asked.requests} answers before and in {after.value:.0%} "
        f"[{after.low:.0%}, {after.high:.0%}] after"
    )
    if measurement.benign_obedience is not None:
        benign = measurement.benign_obedience.rate
        text += (
            f", a benign word in {benign.before.value:.0%} before and "
            f"{benign.after.value:.0%} after"
        )
    return (
        f"{text}. Everyday answers moved by {moved.value:.2g} nats a token where they "
        "say no forbidden word."
    )


def _refusals_in_short(measurement: RequestMeasurement) -> Iterator[str]:
    """How many requests of each kind are refused, and the drift."""
    for one in measurement.asked:
        before, after = one.refused.rate.before, one.refused.rate.after
        kind = f"{one.kind[0].upper()}{one.kind[1:]}"
        yield (
            f"{kind}: {before.value:.0%} of {one.requests} refused before, "
            f"{after.value:.0%} [{after.low:.0%}, {after.high:.0%}] after"
        )
    yield (
        f"Everyday answers moved by {measurement.kl.value:.2g} nats a token on average"
    )


def _form(intervention: Intervention) -> str:
    if isinstance(intervention, AdapterIntervention):
        return "with the change added to outputs, as adapters are"
    return "with the weights as they are stored after rounding"


def _quoted(words: Sequence[str]) -> str:
    if len(words) > 5:
        return f"{len(words)} words"
    return ", ".join(f'"{word}"' for word in words) or "some words"


def _goals(subject: Subject) -> Iterator[Block]:
    if subject.measurement is None:
        return
    rows = [
        (v.name, _verdict(v.reached), verdict_text(v))
        for v in verdicts(subject.measurement, subject.goals)
    ]
    yield Table(("goal", "", "measured"), rows)


def _verdict(reached: bool) -> Mark:
    return Mark("reached", "good") if reached else Mark("missed", "bad")


def _layers(intervention: Intervention) -> Iterator[Block]:
    yield Picture("layers", "Size of the change of each layer.")
    layers = changed_layers(intervention)
    columns = {
        "asked": [layer.asked for layer in layers],
        "reached": [layer.reached for layer in layers],
        "worst shortfall": [layer.shortfall for layer in layers],
    }
    known = {
        name: ["" if one is None else number(one) for one in nats]
        for name, nats in columns.items()
        if any(one is not None for one in nats)
    }
    rows: list[Sequence[Cell]] = [
        (
            Code(layer.name), str(layer.layer), str(layer.rank),
            f"{layer.relative_norm:.2%}", *(nats[at] for nats in known.values()),
        )
        for at, layer in enumerate(layers)
    ]  # fmt: skip
    head = ("weight", "layer", "rank", "share of the norm", *known)
    yield Table(head, rows, range(1, len(head)))
    yield (
        "The share is the Frobenius norm of the change, relative to that of the weight."
    )
    if "neurons" in intervention.metrics:
        yield (
            f"{intervention.metrics['neurons']} neurons of one MLP that did little "
            "were given other rows and columns: they open where a word is about to be "
            "said, and their columns are as large as it takes, which may be many times "
            "the norm of the weight. Elsewhere they stay closed."
        )
    if "worst shortfall" in known:
        yield (
            "Asked is how many nats the constraints ask of the layer on average, "
            "reached how many the weights as stored bring about, without slack and "
            "after rounding, and the shortfall that of the constraint missed most."
        )


def _strength(intervention: Intervention) -> Iterator[Block]:
    sweep = intervention.metrics.get("sweep", [])
    if not sweep:
        return
    yield (
        "Tried on a tuning split, which shares nothing with the data of the "
        "measurement, and the one that is taken."
        if len(sweep) > 1
        else "Given, not chosen; measured on the tuning split."
    )
    yield Picture(
        "sweep",
        "Effect against drift on the tuning split: what was tried, and in orange what "
        "is taken. Dashed lines are the limits.",
    )
    first, *others = shown_columns(sweep[0])
    # The mark is where a phone shows it, too.
    rows = [
        (
            first.text(point),
            Mark("taken", "good") if point.get("chosen") else "",
            *(column.text(point) for column in others),
        )
        for point in sweep
    ]
    head = (first.title, "", *(column.title for column in others))
    yield Table(head, rows, (0, *range(2, len(head))))


def _by_word(subject: Subject) -> Iterator[Block]:
    """The distribution of the effect, and every word that moved too little."""
    measurement, goals = subject.measurement, subject.goals
    if measurement is None:
        return
    yield Picture(
        "words",
        "The share of words that became at most so many times less likely. Left of the "
        "dashed line are those below the goal of a word.",
    )
    words = measurement.forbidden.by_word
    found = distribution(words, goals.word_ratio)
    yield (
        f"A tenth of the forbidden words are at {number(found.tenth)} x or less, half "
        f"of them at {number(found.median)} x or less. The least moved "
        f'"{found.least.word}", {number(ratio_of(found.least))} x. Each word has few '
        "answers here, so that a single word's number is rough."
    )
    goal = f"{goals.word_ratio:g} x"
    below = below_goal(measurement, goals)
    yield (
        f"{len(below)} of {found.words} words are below {goal}: {', '.join(below)}."
        if below
        else f"No word is below {goal}."
    )
    yield Folded(f"All {found.words} words that were measured", _word_rows(measurement))


def _word_rows(measurement: WordMeasurement) -> Table:
    """Every word's perplexity, the one that moved least first."""
    running = measurement.running
    there = {} if running is None else {w.word: w for w in running.by_word}
    head = ["word", "before", "after", "change"]
    if there:
        head.append("in running text")
    rows = []
    for word in sorted(measurement.forbidden.by_word, key=ratio_of):
        row = [word.word, number(word.before), number(word.after)]
        row.append(f"{number(ratio_of(word))} x")
        if there:
            text = there.get(word.word)
            row.append("" if text is None else f"{number(ratio_of(text))} x")
        rows.append(row)
    return Table(head, rows, range(1, len(head)))


def _changes(subject: Subject) -> Iterator[Block]:
    if subject.measurement is not None:
        yield from _changes_of_words(subject.measurement)
    if subject.requests is not None:
        for section in request_sections(subject.requests):
            yield Table(CHANGES, _rows(section.rows), (1, 2, 3, 4), section.title)
        yield (
            "An answer is refused, broken (gibberish or repetition), or else complies; "
            "a matcher of how answers begin tells which, and errs now and then. "
            '"Refused, then helped" begin as a refusal and go on in the form of help; '
            "they are counted among the refused ones."
        )


def _changes_of_words(measurement: WordMeasurement) -> Iterator[Block]:
    yield Picture(
        "perplexity",
        "Each point is a word: how many times its perplexity became what it was. "
        "On the line at 1 x nothing changed; lines in colour are a kind's words "
        "together.",
    )
    for section in word_sections(measurement):
        yield Table(CHANGES, _rows(section.rows), (1, 2, 3, 4), section.title)
    yield (
        "Perplexity is that of a word's tokens in an answer to a prompt that asks for "
        'the word: 1 would be certainty. "Said first" are answers that start with the '
        'word, "said later" those in which something comes before it. "Said when '
        'asked" is the share of greedy answers that contain the word. Where running '
        "text would say a word, a text leads up to it and nobody asks for it. Other "
        "ways to ask for a word are its definition, such a text to go on with, "
        "paraphrases, translation, letters, a begun answer and examples."
    )


def _rows(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    return [
        # Pages keep a wide space; what is indented belongs to the row above.
        (r.label.replace("  ", "\u2003"), r.before, r.after, r.effect, r.interval)
        for r in rows
    ]


def _costs(measurement: WordMeasurement | None) -> Iterator[Block]:
    if measurement is not None:
        yield Bullets(side_effects(measurement))


def _capability(capability: Capability | None) -> Iterator[Block]:
    if capability is None:
        return
    yield Table(CHANGES, _rows(capability_section(capability).rows), (1, 2, 3, 4))
    yield (
        "Instructions are prompts of our own of which code can tell whether the answer "
        'follows them to the letter, such as "exactly two sentences". Tasks are those '
        "of lm_eval that were asked for."
    )


def _limits(subject: Subject) -> Iterator[str]:
    measurement = subject.measurement
    if measurement is not None:
        still = measurement.obedience.rate.after
        yield (
            f"{still.value:.1%} ({still.low:.1%} to {still.high:.1%}) of the requests "
            "for a forbidden word are still obeyed in the greedy answer."
        )
    described = accounts(subject.intervention.options)
    points = [point for account, _ in described for point in account.limits]
    if measurement is not None:
        points += WORD_LIMITS
    yield from unique([*points, REVERSIBLE])
    if measurement is not None:
        yield (
            "The prompts are short and in English. Intervals cover the choice of "
            "prompts, benign words and texts, not other kinds of use."
        )
    elif subject.requests is not None:
        yield (
            "The requests are short and most of them in English. Intervals cover the "
            "choice of requests, not other kinds of use."
        )
    else:
        yield "What it does was not measured on held-out data for this report."


def _provenance(subject: Subject) -> Iterator[Block]:
    intervention = subject.intervention
    rows: list[tuple[str, Any]] = [
        (name, value_text(value))
        for name, value in intervention.options.items()
        if name != "forbid"
    ]
    rows += [(f"version of {n}", str(v)) for n, v in intervention.versions.items()]
    rows.append(("sha256 of the change", Code(intervention.digest)))
    seconds = dict(intervention.metrics.get("seconds", {}))
    for measured in (subject.measurement, subject.requests):
        if measured is not None:
            of_measuring = measured.seconds.items()
            seconds |= {f"measurement: {k}": v for k, v in of_measuring}
    rows += [(f"seconds, {n}", f"{value:.1f}") for n, value in seconds.items()]
    yield Table(("", ""), rows)
    yield "`report.json` has the words, the hashes of the weights and every number."
