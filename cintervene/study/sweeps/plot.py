# SPDX-License-Identifier: Apache-2.0
"""A picture of all settings of a sweep, and of the front among them."""

from __future__ import annotations

import io
import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cintervene.evaluate.report.plot_text import fixed_settings, plot_text
from cintervene.evaluate.report.plots import FAINT, clean, ratio_axis
from cintervene.evaluate.report.svg import svg
from cintervene.study.report.plots import STYLES
from cintervene.study.sweeps.result import Sweep
from cintervene.study.sweeps.rows import SweepRow

__all__ = ["front_figure", "front_pictures"]

DOTS_PER_INCH = 160


def front_pictures(found: Sweep) -> tuple[str, bytes]:
    """The picture as an ``<svg>`` element and as a PNG file."""
    buffer = io.BytesIO()
    with fixed_settings("front"):
        figure = front_figure(found)
        figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH)
    return svg(figure, "front"), buffer.getvalue()


def front_figure(found: Sweep) -> Figure:
    """Draw effect over drift for each list of words, a kind of marker for a method."""
    words = list(dict.fromkeys(row.words for row in found.rows))
    figure = Figure(figsize=(5.2 * len(words), 4.0), layout="constrained")
    every = list(figure.subplots(1, len(words), sharey=True, squeeze=False).flat)
    for axes, name in zip(every, words, strict=True):
        _draw(axes, [row for row in found.rows if row.words == name], found.front)
        if len(words) > 1:
            axes.set_title(plot_text(name), loc="left", fontsize=10)
    every[0].set_ylabel(
        "perplexity of forbidden words, relative to the base,\nfirst or later, the "
        "smaller factor"
    )
    return figure


def _draw(axes: Axes, rows: list[SweepRow], front: list[SweepRow]) -> None:
    clean(axes)
    shown = [r for r in rows if math.isfinite(r.effect) and math.isfinite(r.kl.value)]
    line = sorted((row.kl.value, row.effect) for row in shown if row in front)
    axes.plot(*zip(*line, strict=True), color=FAINT, linewidth=1.4, zorder=1)
    methods = list(dict.fromkeys(row.method for row in rows))
    for place, method in enumerate(methods):
        colour, marker = STYLES[place % len(STYLES)]
        own = [row for row in shown if row.method == method]
        axes.plot(
            [row.kl.value for row in own], [row.effect for row in own], marker,
            color=colour, markersize=6, label=plot_text(method),
        )  # fmt: skip
    for row in shown:
        axes.annotate(
            plot_text(f"{row.layers}: {row.strength}"), (row.kl.value, row.effect),
            xytext=(5, 3), textcoords="offset points", fontsize=7,
        )  # fmt: skip
    axes.set_yscale("log")
    ratio_axis(axes.yaxis)
    axes.set_xlabel("KL on everyday answers, nats a token")
    axes.legend(frameon=False, fontsize=8)
