# SPDX-License-Identifier: Apache-2.0
"""Plots of a study, narrow enough for a phone, as SVG elements of a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, NullFormatter

from cintervene.evaluate.report.plot_text import plot_text
from cintervene.evaluate.report.plots import FAINT, INK, NARROW
from cintervene.evaluate.report.svg import svg
from cintervene.study.report.fronts import FRONTS, draw_front

__all__ = ["pictures"]

Rows: TypeAlias = Sequence[Mapping[str, Any]]
Styles: TypeAlias = Mapping[str, tuple[str, str]]
# Okabe and Ito's palette, and markers, so that colour is never all that differs.
STYLES = (
    ("#000000", "o"), ("#D55E00", "s"), ("#0072B2", "D"), ("#009E73", "^"),
    ("#CC79A7", "v"), ("#E69F00", "P"), ("#56B4E9", "X"),
)  # fmt: skip


def pictures(content: Mapping[str, Any]) -> dict[str, str]:
    """Draw all plots that a study has data for.

    Parameters
    ----------
    content : mapping
        What `study_content` returned.

    Returns
    -------
    dict of str to str
        An ``<svg>`` element by the picture's name.
    """
    styles = {
        defence: STYLES[place % len(STYLES)]
        for place, defence in enumerate(content["defences"])
    }
    figures = {}
    if any(row["suite"] == "harmful" for row in content["rows"]):
        figures["rates"] = _rates(content["rows"], styles)
        figures["categories"] = _categories(content)
        figures["times"] = _times(content["times"], styles)
    for name, front in FRONTS.items():
        if front.swept(content):
            figures[name] = draw_front(front, content, styles, *_figure(3.6))
    if content["depth"]:
        figures["depth"] = _depth(content["depth"], styles)
    if content["measurements"]:
        figures["words"] = _words(content["measurements"], styles)
    return {name: svg(figure, name) for name, figure in figures.items()}


def _rates(rows: Rows, styles: Styles) -> Figure:
    """A line for each defence under each attack, with its interval."""
    shown = [row for row in rows if row["suite"] == "harmful"]
    figure, axes, places = _by_attack(shown)
    for row, height in zip(shown, places, strict=True):
        colour, marker = styles[row["defence"]]
        rate = row["outcomes"]["complied"]
        axes.plot(
            [100 * rate["low"], 100 * rate["high"]], [height] * 2, color=colour, lw=1.6
        )
        axes.plot(100 * rate["value"], height, marker, color=colour, ms=6)
    axes.set_xlim(-2, 102)
    axes.set_xlabel("complied, % of the requests")
    axes.grid(axis="x", color=FAINT, lw=0.5)
    return figure


def _categories(content: Mapping[str, Any]) -> Figure:
    """A heat map of the shares of requests complied with."""
    cells = {(c["category"], c["defence"]): c for c in content["categories"]}
    topics = list(dict.fromkeys(category for category, _ in cells))
    defences = content["defences"]
    figure, axes = _figure(1.2 + 0.36 * len(topics))
    for row, topic in enumerate(topics):
        for column, defence in enumerate(defences):
            cell = cells.get((topic, defence))
            share = cell["complied"] / cell["total"] if cell else 0.0
            corner, shade = (column - 0.48, row - 0.46), colormaps["Oranges"](share)
            axes.add_patch(Rectangle(corner, 0.96, 0.92, color=shade))
            text = f"{cell['complied']}/{cell['total']}" if cell else ""
            ink = "white" if share > 0.65 else INK
            axes.text(column, row, text, ha="center", va="center", color=ink)
    axes.set_xlim(-0.5, len(defences) - 0.5)
    axes.set_ylim(len(topics) - 0.5, -0.5)
    names = list(map(plot_text, defences))
    axes.set_xticks(range(len(defences)), names, rotation=25, ha="right")
    labels = ["\n".join(map(plot_text, topic.split("_"))) for topic in topics]
    axes.set_yticks(range(len(topics)), labels)
    axes.tick_params(length=0)
    return figure


def _times(times: Rows, styles: Styles) -> Figure:
    """A bar for each defence under each attack."""
    figure, axes, places = _by_attack(times)
    answering = [one["defending"] + one["generating"] for one in times]
    colours = [styles[one["defence"]][0] for one in times]
    axes.barh(places, answering, color=colours, height=0.7)
    making = [one["making"] for one in times]
    axes.barh(
        places, making, left=answering, color="white", edgecolor=INK, hatch="///",
        lw=0.6, height=0.7,
    )  # fmt: skip
    axes.set_xlabel("seconds a case; hatched: the attacker's")
    return figure


def _depth(depth: Mapping[str, Rows], styles: Styles) -> Figure:
    """Refusals of answers that were begun, a line with intervals for each defence."""
    figure, axes = _figure(2.8)
    for defence, points in depth.items():
        colour, marker = styles[defence]
        places = [point["depth"] for point in points]
        rates = [point["outcomes"]["refused"] for point in points]
        values = [100 * rate["value"] for rate in rates]
        axes.plot(places, values, marker=marker, color=colour, label=plot_text(defence))
        for place, rate in zip(places, rates, strict=True):
            ends = [100 * rate["low"], 100 * rate["high"]]
            axes.plot([place] * 2, ends, color=colour, lw=0.8)
    axes.set_ylim(-2, 102)
    axes.set_xlabel("tokens of a harmful answer that were given")
    axes.set_ylabel("refused, %")
    axes.legend(frameon=False, fontsize=8)
    return figure


def _words(measurements: Mapping[str, Any], styles: Styles) -> Figure:
    figure, axes = _figure(4.2)
    axes.set(xscale="log", yscale="log")
    ends: list[float] = []
    for name, measurement in measurements.items():
        words = [
            (word["before"], word["after"])
            for word in measurement["forbidden"]["by_word"]
            if word["before"] is not None and word["after"] is not None
        ]
        colour, marker = styles[name]
        axes.scatter(
            [before for before, _ in words], [after for _, after in words], s=18,
            color=colour, marker=marker, alpha=0.7, linewidths=0, label=plot_text(name),
        )  # fmt: skip
        ends += [before for before, _ in words]
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,g}"))
        axis.set_minor_formatter(NullFormatter())
    low, high = min(ends, default=1.0), max(ends, default=10.0)
    axes.axline((low, low), (2 * high, 2 * high), color=INK, lw=1)
    axes.set_xlabel("perplexity before")
    axes.set_ylabel("perplexity after; on the line nothing changed")
    axes.legend(frameon=False)
    return figure


def _by_attack(rows: Rows) -> tuple[Figure, Axes, list[float]]:
    """Axes with a place for each row, those of one attack under its name."""
    attacks = list(dict.fromkeys(row["attack"] for row in rows))
    counts = {attack: sum(r["attack"] == attack for r in rows) for attack in attacks}
    figure, axes = _figure(0.8 + 0.26 * (len(rows) + 1.6 * len(attacks)))
    height, heads, next_place = 0.0, [], {}
    for attack in attacks:
        heads.append(height)
        next_place[attack] = height + 1.0
        height += counts[attack] + 1.6
    places = []
    for row in rows:
        places.append(next_place[row["attack"]])
        next_place[row["attack"]] += 1.0
    labels = map(plot_text, [*attacks, *(row["defence"] for row in rows)])
    axes.set_yticks([*heads, *places], list(labels))
    for label in axes.get_yticklabels()[: len(attacks)]:
        label.set_fontweight("bold")
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(height - 1.0, -0.7)
    return figure, axes, places


def _figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(NARROW, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes
