# SPDX-License-Identifier: Apache-2.0
"""Pictures of the layers of an intervention and of what it does to words.

Figures are made without pyplot, so neither its state nor the backend of the program
around this package matters. Colours are from the palette of Okabe and Ito, which stays
apart for colour-blind eyes; shapes say the same once more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from matplotlib.transforms import Bbox

from cintervene.evaluate.report.plot_text import plot_text
from cintervene.evaluate.report.wording import number
from cintervene.evaluate.words.measurement import WordMeasurement
from cintervene.evaluate.words.records import GroupPerplexity, Layer

__all__ = ["clean", "layers_figure", "perplexity_figure", "ratio_axis"]

FORBIDDEN, BENIGN, RELATED = "#D55E00", "#0072B2", "#8A8A8A"
INK, FAINT = "#222222", "#BBBBBB"
# Width in inches of what a phone can show.
NARROW = 4.6
# Of the axes; a label of two lines fits.
LABEL_HEIGHT = 0.09
# Between labels that were moved apart, in pixels.
GAP = 1.0
POINTS_PER_INCH = 72
# Bars beyond which their labels stand upright.
MANY = 12
# From the least to the greatest ratio of an axis on which each decade has three places.
FEW_DECADES = 1e3
# Ratios that take too much room if every digit of them is written.
LONG = 1e6


def perplexity_figure(measurement: WordMeasurement) -> Figure:
    """Draw how much less likely each word became, and each kind of words in common."""
    figure = Figure(figsize=(7.6, 4.4), layout="constrained")
    axes = figure.subplots()
    clean(axes)
    axes.set(xscale="log", yscale="log")
    axes.axhline(1.0, color=INK, linewidth=1.0, zorder=1)
    kinds = (
        (measurement.related, "related words,\nnot forbidden", RELATED, "D"),
        (measurement.benign, "benign words", BENIGN, "s"),
        (measurement.forbidden, "forbidden words", FORBIDDEN, "o"),
    )
    lines = []
    for group, name, colour, marker in kinds:
        if group is not None:
            ratio = group.all_tokens.together.effect.value
            _draw_words(axes, group, ratio, colour, marker)
            lines.append((ratio, f"{number(ratio)} x  {name}", colour))
    names = _name_extremes(axes, measurement.forbidden)
    _label_lines(figure, axes, lines)
    ratio_axis(axes.yaxis)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,g}"))
    axes.set_xlabel("perplexity of the word in the base model")
    axes.set_ylabel("perplexity with the intervention,\nrelative to the base model")
    _move_apart(figure, names)
    return figure


def layers_figure(layers: Sequence[Layer]) -> Figure:
    """Draw how large the change of each layer is, with its rank."""
    width = min(max(3.6, 0.7 * len(layers) + 1.6), 9.0)
    figure = Figure(figsize=(width, 3.2), layout="constrained")
    axes = figure.subplots()
    clean(axes)
    sizes = [100 * layer.relative_norm for layer in layers]
    bars = axes.bar(range(len(layers)), sizes, width=0.6, color=BENIGN)
    ranks = [f"rank {layer.rank}" for layer in layers]
    upright = 90 if len(layers) > MANY else 0
    axes.bar_label(bars, ranks, padding=2, fontsize=9, rotation=upright)
    axes.set_xticks(range(len(layers)), [str(layer.layer) for layer in layers])
    axes.set_xlabel("layer")
    axes.set_ylabel("norm of the change,\n% of the weight's")
    return figure


def _draw_words(
    axes: Axes, group: GroupPerplexity, ratio: float, colour: str, marker: str
) -> None:
    """The words as points, and their common ratio as a line."""
    before = [word.before for word in group.by_word]
    ratios = [word.after / word.before for word in group.by_word]
    axes.scatter(
        before, ratios, s=26, marker=marker, color=colour, alpha=0.75, linewidths=0.0
    )
    axes.axhline(ratio, color=colour, linewidth=1.2, linestyle="--", zorder=1)


def _name_extremes(
    axes: Axes, group: GroupPerplexity, each: int = 3
) -> list[Annotation]:
    """Write the words beside the points that moved most and least."""
    ranked = sorted(group.by_word, key=lambda word: word.after / word.before)
    named = {word.word: word for word in ranked[:each] + ranked[-each:]}
    return [
        axes.annotate(
            plot_text(word.word), (word.before, word.after / word.before),
            xytext=(5, 3), textcoords="offset points", fontsize=8, color=INK,
        )
        for word in named.values()
    ]  # fmt: skip


def _move_apart(figure: Figure, labels: Sequence[Annotation]) -> None:
    """Move labels, given from the lowest on, up until none is over another."""
    figure.draw_without_rendering()
    taken: list[Bbox] = []
    for label in labels:
        box = label.get_window_extent()
        rises = sorted([0.0, *(max(0.0, b.y1 - box.y0 + GAP) for b in taken)])
        free = (r for r in rises if not box.translated(0, r).count_overlaps(taken))
        # None is free for a label that is not drawn, of an infinite perplexity.
        rise = next(free, 0.0)
        taken.append(box.translated(0, rise))
        x, y = label.xyann
        label.xyann = (x, y + rise * POINTS_PER_INCH / figure.dpi)


def _label_lines(
    figure: Figure, axes: Axes, lines: Sequence[tuple[float, str, str]]
) -> None:
    """Label lines (height, label, colour) in the right margin, none over another."""
    # Axes know their limits, and so places in them, only once they were laid out.
    figure.draw_without_rendering()
    to_fraction = axes.transData + axes.transAxes.inverted()
    free = -math.inf
    for height, label, colour in sorted(lines):
        place = max(float(to_fraction.transform((1.0, height))[1]), free)
        free = place + LABEL_HEIGHT
        axes.annotate(
            label, (1.0, height), xycoords=("axes fraction", "data"),
            xytext=(1.03, place), textcoords="axes fraction", color=colour, va="center",
            fontweight="bold",
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.8},
        )  # fmt: skip


class _Ratios(LogLocator):
    """Places at 1, 2 and 5 of each decade, or at decades where there are many."""

    def tick_values(self, vmin: float, vmax: float) -> Any:
        """Choose places between two ratios."""
        narrow = vmin > 0.0 and vmax / vmin <= FEW_DECADES
        self.set_params(subs=(1.0, 2.0, 5.0) if narrow else (1.0,))
        return super().tick_values(vmin, vmax)


def _short(ratio: float) -> str:
    if ratio >= LONG:
        return f"{ratio:.0e}".replace("+0", "").replace("+", "")
    return f"{ratio:,.0f}" if ratio >= 1.0 else f"{ratio:g}"


def ratio_axis(axis: Axis) -> None:
    """Write the places of a logarithmic axis as "5 x"."""
    axis.set_major_locator(_Ratios(10))
    axis.set_major_formatter(FuncFormatter(lambda x, _: f"{_short(x)} x"))
    axis.set_minor_formatter(NullFormatter())


def clean(axes: Axes) -> None:
    """Leave two of the four sides of a picture open."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
