# SPDX-License-Identifier: Apache-2.0
"""The report of an intervention for readers, as Markdown."""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from cintervene.evaluate.capability.measure import Capability
from cintervene.evaluate.report.capability_table import capability_section
from cintervene.evaluate.report.table import markdown_table
from cintervene.evaluate.report.word_table import below_goal, word_sections
from cintervene.evaluate.report.wording import number, verdict_text
from cintervene.evaluate.words.changed_layers import changed_layers
from cintervene.evaluate.words.distribution import distribution, ratio_of
from cintervene.evaluate.words.goals import Goals, side_effects, verdicts
from cintervene.evaluate.words.measurement import WordMeasurement
from cintervene.evaluate.words.obedience import says
from cintervene.evaluate.words.records import Answer
from cintervene.intervention.acceptance import crossed
from cintervene.intervention.adapter import AdapterIntervention
from cintervene.intervention.intervention import Intervention
from cintervene.methods.account import REVERSIBLE
from cintervene.methods.pcr.account import WORD_LIMITS
from cintervene.utils.escaping import markdown_code, markdown_text, printable

__all__ = ["markdown"]

# What templates and texts of a split are called.
SPLITS = {"held_out": "held-out ", "fresh": "frozen, held-out "}
EXAMPLES = 4
EXCERPT = 120
LIMITS = (*WORD_LIMITS, REVERSIBLE)


def markdown(
    intervention: Intervention,
    measurement: WordMeasurement | None,
    goals: Goals,
    pictures: Collection[str],
    capability: Capability | None = None,
) -> str:
    """Write the report.

    Parameters
    ----------
    intervention : Intervention
        In the form in which it acts: see `write_report`.
    measurement : WordMeasurement or None
    goals : Goals
    pictures : collection of str
        Files beside the report that it can show.
    capability : Capability, optional
    """
    parts = [*_opening(intervention, measurement)]
    if measurement is not None:
        parts += _results(measurement, goals, pictures)
        parts += _examples(measurement.answers)
    if capability is not None:
        parts += _capability(capability)
    parts += _strength(intervention, pictures)
    parts += _layers(intervention, pictures)
    parts += _use(intervention)
    parts += _limits(measurement)
    parts += _provenance(intervention, measurement)
    if not pictures:
        parts.append("There are no pictures: matplotlib (the extra `plot`) is missing.")
    return "\n\n".join(parts) + "\n"


def _opening(
    intervention: Intervention, measurement: WordMeasurement | None
) -> Iterator[str]:
    layers = changed_layers(intervention)
    words = intervention.options.get("forbid", [])
    if measurement is not None:
        words = measurement.words
    yield f"# {len(words)} words forbidden on {_model(intervention, 'a model')}"
    largest = max(layer.relative_norm for layer in layers)
    rank = max(layer.rank for layer in layers)
    yield (
        f"{len(layers)} weight matrices were changed, each by a matrix of rank {rank} "
        f"or less and of at most {largest:.1%} of the weight's norm, so that the model "
        f"says {_quoted(words)} less. No other weight was touched."
    )
    if measurement is None:
        yield (
            "What this did has not been measured on held-out data; "
            "`cintervene evaluate` does that."
        )
    else:
        yield (
            "Everything below was measured before and after on "
            f"{SPLITS.get(measurement.split, '')}templates, "
            "prompts, texts and benign words of the package's "
            f"`{measurement.split}` split, {_form(intervention)}. Intervals are "
            f"{measurement.level:.0%} intervals."
        )


def _form(intervention: Intervention) -> str:
    if isinstance(intervention, AdapterIntervention):
        return "with the change added to outputs, as adapters are"
    return "with the weights as they are stored after rounding"


def _results(
    measurement: WordMeasurement, goals: Goals, pictures: Collection[str]
) -> Iterator[str]:
    yield "## Goals"
    yield markdown_table(
        ("goal", "measured", ""),
        [
            (v.name, verdict_text(v), "reached" if v.reached else "**missed**")
            for v in verdicts(measurement, goals)
        ],
    )
    yield "## What changed, and what did not"
    yield from _picture(
        pictures, "perplexity.png",
        "Each point is a word: how many times its perplexity became what it was. "
        "On the line at 1 x nothing changed; lines in colour are a kind's words "
        "together.",
    )  # fmt: skip
    yield markdown_table(
        ("", "before", "after", "change", "interval"),
        [
            row
            for section in word_sections(measurement)
            for row in (
                (f"**{section.title}**", "", "", "", ""),
                *((r.label, r.before, r.after, r.effect, r.interval)
                  for r in section.rows),
            )
        ],
        right=(1, 2, 3),
    )  # fmt: skip
    yield (
        "Perplexity is that of a word's tokens in an answer to a prompt that asks for "
        'the word: 1 would be certainty. "Said first" are answers that start with the '
        'word, "said later" those in which something comes before it. "Said when '
        'asked" is the share of greedy answers that contain the word. Where running '
        "text would say a word, a text leads up to it and nobody asks for it. Other "
        "ways to ask for a word are its definition, such a text to go on with, "
        "paraphrases, translation, letters, a begun answer and examples."
    )
    yield from _word_by_word(measurement, goals, pictures)
    yield "## What it cost"
    yield "\n".join(f"- {sentence}" for sentence in side_effects(measurement))


def _word_by_word(
    measurement: WordMeasurement, goals: Goals, pictures: Collection[str]
) -> Iterator[str]:
    """The distribution of the effect, and every word that moved too little."""
    yield "## Word by word"
    yield from _picture(
        pictures, "words.png",
        "The share of words that became at most so many times less likely. Left of the "
        "dashed line are those below the goal of a word.",
    )  # fmt: skip
    found = distribution(measurement.forbidden.by_word, goals.word_ratio)
    yield (
        f"A tenth of the forbidden words are at {number(found.tenth)} x or less, half "
        f"of them at {number(found.median)} x or less. The least moved "
        f"*{markdown_text(found.least.word)}*, {number(ratio_of(found.least))} x. Each "
        "word has few answers here, so that a single word's number is rough."
    )
    goal = f"{goals.word_ratio:g} x"
    below = below_goal(measurement, goals)
    yield (
        f"{len(below)} of {found.words} words are below {goal}: "
        f"{markdown_text(', '.join(below))}."
        if below
        else f"No word is below {goal}."
    )


def _examples(answers: Sequence[Answer]) -> Iterator[str]:
    """A few answers: changed ones, ones that still say the word, and benign ones."""
    forbidden = [answer for answer in answers if answer.forbidden]
    kept = [a for a in forbidden if says(a.after, a.word)]
    lost = [a for a in forbidden if says(a.before, a.word) and a not in kept]
    benign = [a for a in answers if not a.forbidden and says(a.before, a.word)]
    yield "## Answers"
    yield (
        "Greedy answers, cut to the tokens that were generated; `report.json` has all "
        f"{len(answers)}."
    )
    for title, group in (
        ("Forbidden words that are no longer said", lost),
        ("Forbidden words that are still said", kept),
        ("Benign words", benign),
    ):
        if group:
            shown = group[:EXAMPLES]
            yield f"{title} ({len(shown)} of {len(group)}):"
            yield markdown_table(
                ("request", "before", "after"),
                [(_code(a.prompt), _code(a.before), _code(a.after)) for a in shown],
            )


def _capability(capability: Capability) -> Iterator[str]:
    yield "## Capability"
    section = capability_section(capability)
    yield markdown_table(
        ("", "before", "after", "change", "interval"),
        [
            (markdown_text(r.label), r.before, r.after, r.effect, r.interval)
            for r in section.rows
        ],
        right=(1, 2, 3),
    )
    yield (
        "Instructions are prompts of our own of which code can tell whether the answer "
        'follows them to the letter, such as "exactly two sentences". Tasks are those '
        "of lm_eval that were asked for."
    )


def _strength(intervention: Intervention, pictures: Collection[str]) -> Iterator[str]:
    sweep = intervention.metrics.get("sweep", [])
    if not sweep:
        return
    yield "## Strength"
    yield (
        "Tried on a tuning split, which shares nothing with the data of the "
        "measurement; the one at the knee of effect against drift is taken."
        if len(sweep) > 1
        else "Given, not chosen; measured on the tuning split."
    )
    yield from _picture(pictures, "sweep.png", "Effect against drift.")
    yield markdown_table(
        ("strength", "forbidden words' perplexity", "benign words'", "KL, nats", ""),
        [
            (
                number(point["strength"]),
                f"{number(point['forbidden_ratio'])} x",
                f"{number(point['benign_ratio'])} x",
                number(point["kl"]),
                "taken" if point["chosen"] else "",
            )
            for point in sweep
        ],
        right=(0, 1, 2, 3),
    )


def _layers(intervention: Intervention, pictures: Collection[str]) -> Iterator[str]:
    yield "## Layers"
    yield from _picture(pictures, "layers.png", "Size of the change of each layer.")
    layers = changed_layers(intervention)
    yield markdown_table(
        ("layer", "weight", "rank", "norm", "asked", "reached", "worst shortfall"),
        [
            (
                str(layer.layer),
                markdown_code(layer.name),
                str(layer.rank),
                f"{layer.relative_norm:.2%}",
                *(
                    "" if nats is None else number(nats)
                    for nats in (layer.asked, layer.reached, layer.shortfall)
                ),
            )
            for layer in layers
        ],
        right=(0, 2, 3, 4, 5, 6),
    )
    if any(layer.shortfall is not None for layer in layers):
        yield (
            "The norm is relative to the weight's. *Asked* is how many nats the "
            "constraints ask of the layer on average, *reached* how many the weights "
            "as stored bring about, without slack and after rounding, and the "
            "*shortfall* that of the constraint missed most."
        )


def _use(intervention: Intervention) -> Iterator[str]:
    model = printable(intervention.model or "MODEL")
    yield "## Use"
    beyond = "" if crossed(intervention) is None else "--beyond-limits "
    if isinstance(intervention, AdapterIntervention):
        yield from _use_attached(model, beyond)
    else:
        yield from _use_applied(model, beyond)


def _use_applied(model: str, beyond: str) -> Iterator[str]:
    yield (
        "```\n"
        f"cintervene apply --model {shlex.quote(model)} --intervention "
        f"intervention.safetensors {beyond}--out changed\n"
        "cintervene revert --model changed --intervention intervention.safetensors "
        "--out base\n"
        "```"
    )
    yield (
        "```python\n"
        "from cintervene.models import Intervention, load\n\n"
        f"model, tokenizer = load({json.dumps(model)})\n"
        'intervention = Intervention.load("intervention.safetensors")\n'
        "intervention.apply(model)   # in place; refused if the base is another one\n"
        "intervention.revert(model)  # the old weights, to the bit\n"
        "```"
    )


def _use_attached(model: str, beyond: str) -> Iterator[str]:
    """What can be done where weights are quantised or offloaded to a disk."""
    yield (
        "Weights of this model are packed or offloaded to a disk, and cannot be "
        "changed themselves. The change is added to outputs, as adapters are:"
    )
    yield (
        "```python\n"
        "from cintervene.export import AdapterIntervention\n"
        "from cintervene.models import Intervention, load\n\n"
        f"model, tokenizer = load({json.dumps(model)})\n"
        'change = Intervention.load("intervention.safetensors")\n'
        "attached = AdapterIntervention(change)\n"
        "attached.apply(model)   # the base is not checked\n"
        "attached.revert(model)  # nothing is added any more\n"
        "```"
    )
    yield "As a LoRA adapter, which peft loads onto packed weights:"
    yield (
        "```\n"
        "cintervene export --to lora --intervention intervention.safetensors "
        f"{beyond}--out adapter\n"
        "```"
    )
    yield "Where weights are only on a disk, `cintervene apply` changes the checkpoint."


def _limits(measurement: WordMeasurement | None) -> Iterator[str]:
    yield "## Limits"
    points = list(LIMITS)
    if measurement is not None:
        still = measurement.obedience.rate.after
        points.insert(
            0,
            f"{still.value:.1%} ({still.low:.1%} to {still.high:.1%}) of the requests "
            "for a forbidden word are still obeyed in the greedy answer.",
        )
        points.append(
            "The prompts are short and in English. Intervals cover the choice of "
            "prompts, benign words and texts, not other kinds of use."
        )
    yield "\n".join(f"- {point}" for point in points)


def _provenance(
    intervention: Intervention, measurement: WordMeasurement | None
) -> Iterator[str]:
    yield "## Provenance"
    rows = [
        (markdown_text(name), _value(value))
        for name, value in intervention.options.items()
        if name != "forbid"
    ]
    rows += [
        (_value(f"version of {n}"), _value(v)) for n, v in intervention.versions.items()
    ]
    rows.append(("sha256 of the change", f"`{intervention.digest}`"))
    seconds = dict(intervention.metrics.get("seconds", {}))
    if measurement is not None:
        seconds |= {f"measurement: {k}": v for k, v in measurement.seconds.items()}
    rows += [(_value(f"seconds, {n}"), f"{value:.1f}") for n, value in seconds.items()]
    yield markdown_table(("", ""), rows)
    yield "`report.json` has the words, the hashes of the weights and every number."


def _picture(pictures: Collection[str], name: str, caption: str) -> Iterator[str]:
    if name in pictures:
        yield f"![{caption}]({name})"
        yield f"*{caption}*"


def _code(text: str) -> str:
    """A short excerpt on one line, shown as it is."""
    line = " ".join(text.split())
    if len(line) > EXCERPT:
        line = line[:EXCERPT].rstrip() + " …"
    return markdown_code(line) if line else "(nothing)"


def _quoted(words: Sequence[str]) -> str:
    if len(words) > 5:
        return f"{len(words)} words"
    return ", ".join(f"*{markdown_text(word)}*" for word in words) or "some words"


def _value(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return markdown_text(text)


def _model(intervention: Intervention, unnamed: str) -> str:
    return markdown_text(intervention.model or unnamed)
