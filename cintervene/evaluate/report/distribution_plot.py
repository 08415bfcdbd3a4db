# SPDX-License-Identifier: Apache-2.0
"""A picture of how the effect is distributed over words."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from cintervene.evaluate.report.plot_text import plot_text
from cintervene.evaluate.report.plots import (
    BENIGN,
    FAINT,
    FORBIDDEN,
    INK,
    NARROW,
    RELATED,
    clean,
    ratio_axis,
)
from cintervene.evaluate.report.wording import number
from cintervene.evaluate.words.distribution import distribution, ratio_of
from cintervene.evaluate.words.measurement import WordMeasurement
from cintervene.evaluate.words.records import WordPerplexity

__all__ = ["distribution_figure"]

# Words that are named: the least of them.
NAMED = 5


def distribution_figure(
    measurement: WordMeasurement, goal: float, narrow: bool = False
) -> Figure:
    """Draw the share of words of each kind with at most each ratio.

    Names stand beside the picture, or below it where it is to be narrow.
    """
    size = (NARROW, 4.6) if narrow else (7.6, 3.8)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    clean(axes)
    axes.set_xscale("log")
    axes.axvline(1.0, color=INK, linewidth=1.0, zorder=1)
    axes.axvline(goal, color=FAINT, linewidth=1.0, linestyle="--", zorder=0)
    forbidden = measurement.forbidden.by_word
    _draw(axes, forbidden, "forbidden, when asked for", FORBIDDEN, "-")
    if measurement.running is not None:
        _draw(axes, measurement.running.by_word, "in running text", FORBIDDEN, ":")
    for group, name, colour in (
        (measurement.related, "related, not forbidden", RELATED),
        (measurement.benign, "benign", BENIGN),
    ):
        if group is not None:
            _draw(axes, group.by_word, name, colour, "-")
    ratio_axis(axes.xaxis)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel("perplexity of the word, relative to the base model")
    axes.set_ylabel("share of words with at most this ratio")
    if narrow:
        figure.legend(frameon=False, loc="outside lower center", fontsize=9, ncols=2)
        return figure
    _name_least(axes, forbidden, goal)
    axes.legend(
        frameon=False, loc="lower left", bbox_to_anchor=(1.0, 0.0), fontsize=9,
        borderaxespad=0.2,
    )  # fmt: skip
    return figure


def _draw(
    axes: Axes, words: Sequence[WordPerplexity], name: str, colour: str, style: str
) -> None:
    ratios = sorted(ratio_of(word) for word in words)
    axes.ecdf(ratios, color=colour, linestyle=style, linewidth=1.4, label=name)


def _name_least(axes: Axes, words: Sequence[WordPerplexity], goal: float) -> None:
    """Name the words that moved least, in the order of their ratios."""
    found = distribution(words, goal)
    least = sorted(words, key=ratio_of)[:NAMED]
    lines = [f"{plot_text(word.word)} {number(ratio_of(word))} x" for word in least]
    more = f"{len(found.below)} of {found.words} words below {goal:g} x"
    axes.text(
        1.03, 0.98, "\n".join([more, "the least:", *lines]), va="top", ha="left",
        transform=axes.transAxes, fontsize=8, color=FORBIDDEN,
    )  # fmt: skip
