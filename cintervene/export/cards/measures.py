# SPDX-License-Identifier: Apache-2.0
"""What a model card says was measured, where, and whether limits were crossed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cintervene.evaluate.report.accounts import account_of
from cintervene.evaluate.report.table import markdown_table
from cintervene.evaluate.report.wording import interval, number, verdict_text
from cintervene.evaluate.statistics.intervals import Estimate
from cintervene.evaluate.words.goals import Verdict
from cintervene.intervention.acceptance import allowed, chosen_point, excessive
from cintervene.intervention.intervention import Intervention
from cintervene.utils.escaping import markdown_code, markdown_text

__all__ = ["crossed", "measured", "measures"]

# Measures of a sweep that methods have in common.
LABELS = {
    "benign_ratio": "perplexity of benign words, after over before",
    "false_refusals": "share of benign requests refused, after minus before",
    "kl": "KL on benign answers, nats a token",
}
# How a measurement of what was exported was made.
FORMS = {
    "lora": "Measured on what was read again from these files, added to outputs as "
    "adapters are.",
    "gguf": "Measured on what was read again from this file, added to the outputs of "
    "the model with unquantised weights, by transformers and not by llama.cpp. "
    "Quantised weights answer somewhat differently.",
    "checkpoint": "Measured on the changed weights as they were read again from these "
    "files.",
    "intervention": "Measured with the change of this file applied.",
}
EARLIER = "Measured when the change was made or evaluated, not on these files."


def crossed(intervention: Intervention) -> str:
    """Say which limits the chosen change crosses on the tuning split; else nothing."""
    point, limits = chosen_point(intervention), allowed(intervention)
    excesses = [
        f"{_label(intervention, name)}: {number(point[name])}, at most "
        f"{number(limits[name])} was allowed"
        for name in excessive(intervention)
    ]
    if intervention.metrics.get("within_limits", not excesses):
        return ""
    return (
        "> **Limits were crossed.** No change that was tried keeps what was asked for "
        f"on the tuning split: {'; '.join(excesses) or 'see Measures'}."
    )


def measured(report: Mapping[str, Any] | None) -> bool:
    """Tell whether a report holds figures of held-out data."""
    return bool(report and (report.get("verdicts") or report.get("requests")))


def measures(
    intervention: Intervention, report: Mapping[str, Any] | None, form: str
) -> Iterator[str]:
    """Tables of what was measured, on held-out data if there are such figures."""
    if report is not None and measured(report):
        yield FORMS[form] if report.get("read_again") else EARLIER
        if report.get("verdicts"):
            yield from _words(report)
        if report.get("requests"):
            yield from _requests(report["requests"])
    elif chosen_point(intervention):
        yield from _tuning(intervention)
    else:
        yield "Not measured."


def _words(report: Mapping[str, Any]) -> Iterator[str]:
    split = (report.get("measurement") or {}).get("split", "")
    shown = markdown_code(split)
    yield f"Before and after, on the package's {shown} split, with 95% intervals."
    yield markdown_table(
        ("measure", "measured", "interval", ""), list(map(_row, report["verdicts"]))
    )
    costs = map(markdown_text, report["side_effects"])
    yield "\n".join(f"- {sentence}" for sentence in costs)


def _row(entry: Mapping[str, Any]) -> tuple[str, ...]:
    estimate = Estimate(**entry["measured"])
    verdict = Verdict(
        entry["name"], estimate, entry["unit"], entry["limit"], entry["at_least"]
    )
    return (
        markdown_text(verdict.name),
        markdown_text(verdict_text(verdict)),
        interval(estimate),
        "reached" if verdict.reached else "**missed**",
    )


def _requests(measurement: Mapping[str, Any]) -> Iterator[str]:
    """Shares of requests that are refused, and drift."""
    yield (
        f"Greedy answers of {markdown_text(measurement['tokens'])} tokens to requests "
        f"of the package's {markdown_code(measurement['split'])} split, with 95% "
        "intervals (Wilson's; of changes Newcombe's). *Refused* is what begins as a "
        "refusal, *broken* what is empty, goes round in circles or is gibberish."
    )
    rows = []
    for kind in measurement["asked"]:
        for outcome in ("refused", "broken"):
            change = kind[outcome]["rate"]
            shares = (_percent(change[when], "%") for when in ("before", "after"))
            points = _percent(change["effect"], "")
            label = markdown_text(f"{kind['kind']} ({kind['requests']})")
            rows.append((label, outcome, *shares, points))
    yield markdown_table(("requests", "", "before", "after", "change, points"), rows)
    kl = Estimate(**measurement["kl"])
    yield (
        f"Everyday answers moved by {number(kl.value)} nats a token {interval(kl)}, "
        f"KL(base || changed) over {measurement['kl_tokens']} tokens of the base's "
        f"answers to {measurement['kl_prompts']} everyday prompts."
    )


def _percent(estimate: Mapping[str, float], unit: str) -> str:
    value, low, high = (100 * estimate[end] for end in ("value", "low", "high"))
    return f"{value:.1f}{unit} [{low:.1f}, {high:.1f}]"


def _tuning(intervention: Intervention) -> Iterator[str]:
    point = chosen_point(intervention)
    labels = account_of(intervention.options).settings
    settings = [
        f"{label}: {number(point[name])}"
        for name, label in labels.items()
        if name in point
    ]
    chosen = f" ({'; '.join(settings)})" if settings else ""
    yield f"On the tuning split, by which this was chosen{chosen}:"
    limits = allowed(intervention)
    yield markdown_table(
        ("measure", "measured", "allowed"),
        [
            (
                _label(intervention, name),
                number(value),
                f"at most {number(limits[name])}" if name in limits else "",
            )
            for name, value in point.items()
            if isinstance(value, float) and name not in labels
        ],
    )


def _label(intervention: Intervention, name: str) -> str:
    labels = {**LABELS, **account_of(intervention.options).measures}
    return labels.get(name) or markdown_text(name)
