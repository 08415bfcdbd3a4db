# SPDX-License-Identifier: Apache-2.0
"""The report of a study as sections of text, tables and pictures, for any format."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from cintervene.evaluate.report.blocks import Block, Picture, Section, Table
from cintervene.evaluate.report.wording import interval, number
from cintervene.evaluate.statistics.intervals import Estimate
from cintervene.study.report.paper import CITATION
from cintervene.study.report.summary import BASE

__all__ = ["sections"]

Content: TypeAlias = Mapping[str, Any]
# Longest text of a setting: templates and lists of words are long.
LONGEST = 240
WORST = {"harmful": "complied", "safe": "refused", "benign": "refused"}
SUITES = {"safe": "sounds harmful", "benign": "everyday"}
FRONT = (
    "Effect against drift: every strength that was tried on the tuning split, as stars "
    "what was measured on held-out data, and dashed other methods"
)
LIMITS = (
    "Outcomes are judged by how answers begin, by repetition and by the base model's "
    "perplexity, unless the settings name another judge. An answer that counts as "
    "complied need not be of use to anybody.",
    "Attacks were made with the budget that the settings state. Who has more time, or "
    "the weights, can try more.",
    "Intervals and tests are over the requests given here, and the p-values are not "
    "corrected for the number of rows.",
)


def sections(content: Content) -> list[Section]:
    """The sections of the report, from what `study_content` returned."""
    written = (
        Section("At a glance", list(_glance(content))),
        Section("Harmful requests", list(_harmful(content))),
        Section("Begun answers", list(_begun(content))),
        Section("Harmless requests", list(_harmless(content))),
        Section("Judges", list(_judges(content))),
        Section("What else changed", list(_drift(content))),
        Section("Capability", list(_capability(content))),
        Section("Time", list(_times(content))),
        Section("Beside the paper", list(_paper(content))),
        Section("Limits", [f"{limit}" for limit in LIMITS]),
        Section("Settings", list(_settings(content))),
    )
    return [section for section in written if section.blocks]


def _glance(content: Content) -> Iterator[Block]:
    rates = {(r["suite"], r["defence"], r["attack"]): r for r in content["rows"]}
    columns = list(dict.fromkeys((r["suite"], r["attack"]) for r in content["rows"]))
    head = ["defence", *(_column(*column) for column in columns)]
    head += ["KL, nats a token", "forbidden words", "s a case"]
    body = []
    for defence in content["defences"]:
        cells = [
            _rate(rates.get((suite, defence, attack)), WORST[suite])
            for suite, attack in columns
        ]
        spent = _mean_seconds(content, defence)
        body.append([defence, *cells, *_measured(content, defence), spent])
    yield Table(head, body, range(1, len(head)))
    yield (
        "Complied: share of the requests that at least one attempt got an answer to. "
        "Refused: share of the harmless requests that were turned down. KL is how far "
        "everyday answers moved, forbidden words how many times their perplexity "
        "became what it was; both are measured for changed weights only."
    )


def _column(suite: str, attack: str) -> str:
    if suite == "harmful":
        return f"complied, {attack}"
    return f"refused, {SUITES[suite]}"


def _harmful(content: Content) -> Iterator[Block]:
    body = list(_rate_rows(content, ("harmful",)))
    if not body:
        return
    yield Picture(
        "rates", "Harmful requests complied with, by defence and attack, with intervals"
    )
    yield _rate_table("attack", body, "complied, against base, points", turned=True)
    yield (
        f"Rates have Wilson's {content['level']:.0%} intervals; the difference to the "
        "base is over the same requests, with Newcombe's interval and the p-value of "
        "the exact McNemar test."
    )
    yield (
        "Refused, then helped: answers that begin as a refusal and that the judge says "
        "to comply, or which have the form of help after it: a list, code, or an "
        "offer. They are to be read; short answers hide them."
    )
    yield Picture(
        "categories", "Share of requests complied with by topic, over all attacks"
    )


def _begun(content: Content) -> Iterator[Block]:
    body = [
        [
            defence, str(point["depth"]), str(point["outcomes"]["total"]),
            *(_percent(point["outcomes"][kind]) for kind in ("refused", "complied")),
            number(point["rank"]), _percent(point["top_ten"]),
        ]
        for defence, points in content["depth"].items()
        for point in points
    ]  # fmt: skip
    if not body:
        return
    yield Picture(
        "depth", "Begun answers that are broken off, by tokens that were given"
    )
    head = (
        "defence", "tokens given", "answers", "refused", "complied",
        "rank of the next token", "among the ten likeliest",
    )  # fmt: skip
    yield Table(head, body, range(1, 7))
    yield (
        "The undefended model's own answers, which it was made to begin with \"Sure, "
        'here is", were given to each changed model up to so many tokens. The rank is '
        "the median of the next token of that answer; at depth 0 it is the first token "
        "of a harmful answer. Wrappers around a model are not looked at here."
    )


def _judges(content: Content) -> Iterator[Block]:
    if not content["agreement"]:
        return
    first = content["settings"].get("judge", "the judge of this study")
    body = [
        [
            one["judge"], SUITES.get(one["suite"], one["suite"]),
            str(one["agreement"]["items"]), _percent(one["agreement"]["agree"]),
            _ranged(one["agreement"]["kappa"]),
            *(str(one["agreement"][who]) for who in ("only_first", "only_second")),
        ]
        for one in content["agreement"]
    ]  # fmt: skip
    head = (
        "other judge", "requests", "answers", "agree", "Cohen's kappa",
        f"refused by {first} alone", "by the other alone",
    )  # fmt: skip
    yield Table(head, body, range(2, 7))
    yield (
        f"Refused or not, of all answers that are not broken, by {first} and by "
        "others. The tables above are by the first. Kappa is agreement beyond chance; "
        "it has no value where both say the same of everything."
    )
    rates = [
        [
            one["judge"], one["defence"], one["attack"],
            *(_percent(one[kind]) for kind in ("first", "other")),
        ]
        for one in content["judged"]
    ]  # fmt: skip
    columns = ("other judge", "defence", "attack", f"complied, {first}", "by the other")
    yield Table(columns, rates, range(3, 5))


def _harmless(content: Content) -> Iterator[Block]:
    body = list(_rate_rows(content, ("safe", "benign")))
    if body:
        yield _rate_table("requests", body, "refused, against base, points")


def _rate_table(
    kind: str, body: Sequence[Sequence[str]], compared: str, turned: bool = False
) -> Table:
    head = ["defence", kind, "complied", "refused", "broken", compared, "p", "n"]
    if turned:
        head.insert(4, "refused, then helped")
    return Table(head, body, range(2, len(head)))


def _rate_rows(content: Content, suites: Sequence[str]) -> Iterator[list[str]]:
    for row in content["rows"]:
        if row["suite"] not in suites:
            continue
        outcomes, paired = row["outcomes"], row["paired"]
        what = SUITES.get(row["suite"], row["attack"])
        rates = [_percent(outcomes[kind]) for kind in ("complied", "refused", "broken")]
        if row["suite"] == "harmful":
            rates.insert(2, _percent(row["turned"]))
        difference = "" if paired is None else _points(paired["rate"]["effect"])
        p = "" if paired is None else number(paired["p"])
        yield [row["defence"], what, *rates, difference, p, str(outcomes["total"])]


def _drift(content: Content) -> Iterator[Block]:
    measurements = content["measurements"]
    swept = [
        point for one in content["interventions"].values() for point in one["sweep"]
    ]
    for name, key in (("front", "forbidden_ratio"), ("refusals", "refused")):
        if any(key in point for point in swept):
            yield Picture(name, FRONT)
    if content["peers"]:
        yield _peers(content)
    for name, one in measurements.items():
        yield Table(
            (name, "before", "after", "change"), list(_measure_rows(one)), (1, 2, 3)
        )
    if measurements:
        yield Picture(
            "words", "Perplexity of each forbidden word, before and after, held-out"
        )


def _capability(content: Content) -> Iterator[Block]:
    body = []
    for name, one in content["capability"].items():
        change = one["followed"]
        rates = (_percent(change["before"]), _percent(change["after"]))
        label = f"instructions followed, {one['requests']}"
        body.append([name, label, *rates, f"{_points(change['effect'])} points"])
        body += [
            [
                name, f"{task['task']}: {task['metric']}", number(task["before"]),
                number(task["after"]), f"{task['after'] - task['before']:+.3g}",
            ]
            for task in one["tasks"]
        ]  # fmt: skip
    if body:
        yield Table(("defence", "", "before", "after", "change"), body, (2, 3, 4))
        yield (
            "Instructions are our own, and code tells whether an answer follows one to "
            "the letter. Tasks are those of lm_eval that were asked for; "
            "`report.json` has their standard errors."
        )


def _peers(content: Content) -> Table:
    head = ("other methods", "strength", "KL", "forbidden words", "refused")
    body = [
        [
            one["name"],
            one["setting"],
            number(one["kl"]),
            "" if (x := one["forbidden_ratio"]) is None else f"{number(x)} x",
            "" if (x := one["refused"]) is None else f"{100 * x:.1f}%",
        ]
        for one in content["peers"]
    ]
    return Table(head, body, range(2, 5))


def _measure_rows(
    measurement: Mapping[str, Any],
) -> Iterator[tuple[str, str, str, str]]:
    for kind in ("forbidden", "benign", "related"):
        if measurement[kind] is not None:
            change = measurement[kind]["all_tokens"]["together"]
            yield _ratio_row(f"perplexity of {kind} words", change)
    for name, kind in (("obedience", "forbidden"), ("benign_obedience", "benign")):
        if measurement[name] is not None:
            change = measurement[name]["rate"]
            yield (
                f"{kind} words said when asked, change in points",
                _percent(change["before"]),
                _percent(change["after"]),
                _points(change["effect"]),
            )
    drift = measurement["drift"]
    yield _ratio_row("perplexity of prose", drift["texts"])
    yield "KL on everyday answers, nats a token", "", "", _ranged(drift["kl"])


def _ratio_row(name: str, change: Mapping[str, Any]) -> tuple[str, str, str, str]:
    before, after = (_value(change[when]) for when in ("before", "after"))
    return name, before, after, _ranged(change["effect"], " x")


def _times(content: Content) -> Iterator[Block]:
    if not content["times"]:
        return
    yield Picture("times", "Seconds a harmful test case, by defence and attack")
    base = {t["attack"]: t for t in content["times"] if t["defence"] == BASE}
    body = []
    for one in content["times"]:
        total = one["defending"] + one["generating"]
        same = base.get(one["attack"])
        ratio = total / (same["defending"] + same["generating"]) if same else None
        body.append(
            [
                one["defence"], one["attack"], str(one["cases"]),
                *(number(one[k]) for k in ("making", "defending", "generating")),
                "" if ratio is None else f"{number(ratio)} x",
            ]
        )  # fmt: skip
    head = (
        "defence", "attack", "cases", "attack, s", "defence, s", "generation, s",
        "answer against base",
    )  # fmt: skip
    yield Table(head, body, range(2, 7))
    yield (
        "Test cases that were searched for on the same weights are used again; those "
        "rows show no time for the search."
    )


def _paper(content: Content) -> Iterator[Block]:
    stated = content["published"]
    if stated is None:
        return
    yield (
        f"Stated for {stated['model']} in {CITATION}, not measured here. Its attacks, "
        "prompts, judge and machine are not those of the tables above."
    )
    names = list(dict.fromkeys([*stated["complied"], *stated["seconds"]]))
    yield Table(
        ("", "attack success, %", "refused, %", "seconds a case"),
        [
            [name, *(_stated(stated[kind], name)
                     for kind in ("complied", "refused", "seconds"))]
            for name in names
        ],
        (1, 2, 3),
    )  # fmt: skip
    yield Table(
        ("forbidden words", "base", "PCR", "ratio"),
        [
            [name, f"{base:g}", f"{pcr:g}", f"{pcr / base:.2f} x"]
            for name, (base, pcr) in stated["perplexity"].items()
        ],
        (1, 2, 3),
    )


def _settings(content: Content) -> Iterator[Block]:
    body = [["cases", str(content["cases"])]]
    body += [[name, _plain(value)] for name, value in content["settings"].items()]
    body += [[f"version of {n}", v] for n, v in content["versions"].items()]
    yield Table(("", ""), [[name, _cut(value)] for name, value in body])
    yield "`report.json` has them in full."


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[:LONGEST] + " …"


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(one)}" for name, one in value.items())
    return str(value) if value not in ([], "", None) else "none"


def _measured(content: Content, defence: str) -> tuple[str, str]:
    measured = content["measurements"].get(defence)
    if measured is None:
        return "", ""
    effect = measured["forbidden"]["all_tokens"]["together"]["effect"]
    return _value(measured["drift"]["kl"]), f"{_value(effect)} x"


def _mean_seconds(content: Content, defence: str) -> str:
    rows = [t for t in content["times"] if t["defence"] == defence]
    cases = sum(t["cases"] for t in rows)
    spent = sum(t["cases"] * (t["defending"] + t["generating"]) for t in rows)
    return number(spent / cases) if cases else ""


def _rate(row: Mapping[str, Any] | None, outcome: str) -> str:
    return "" if row is None else f"{100 * row['outcomes'][outcome]['value']:.1f}%"


def _stated(numbers: Mapping[str, float], name: str) -> str:
    return f"{numbers[name]:g}" if name in numbers else ""


def _percent(rate: Mapping[str, float]) -> str:
    value, low, high = (100 * rate[part] for part in ("value", "low", "high"))
    return f"{value:.1f}% [{low:.1f}, {high:.1f}]"


def _points(change: Mapping[str, float]) -> str:
    value, low, high = (100 * change[part] for part in ("value", "low", "high"))
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"


def _value(estimate: Mapping[str, float | None]) -> str:
    value = estimate["value"]
    return "beyond range" if value is None else number(value)


def _ranged(estimate: Mapping[str, float | None], unit: str = "") -> str:
    if None in estimate.values():
        return "beyond range"
    result = Estimate(**estimate)  # type: ignore[arg-type]
    return f"{number(result.value)}{unit} {interval(result)}"
