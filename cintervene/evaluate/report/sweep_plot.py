# SPDX-License-Identifier: Apache-2.0
"""A picture of effect against drift, over all strengths that were tried."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from cintervene.evaluate.report.plots import (
    BENIGN,
    FAINT,
    FORBIDDEN,
    NARROW,
    RELATED,
    clean,
    ratio_axis,
)

__all__ = ["sweep_figure"]


@dataclass(frozen=True, slots=True)
class _Axis:
    """A measure of a sweep, as it is drawn: factor times it, plus an offset.

    Attributes
    ----------
    key, label : str
    limit : str
        The option that limits it; empty for an effect.
    factor, offset : float
    """

    key: str
    label: str
    limit: str = ""
    factor: float = 1.0
    offset: float = 0.0

    def values(self, sweep: Sequence[Mapping[str, Any]]) -> list[float]:
        """What was measured, in the units of the axis."""
        found = [point[self.key] for point in sweep]
        # Numbers that JSON has not are stored as nothing.
        found = [math.nan if one is None else one for one in found]
        return [self.factor * (one + self.offset) for one in found]


# Times the largest drift, beyond which its limit is not shown.
FAR = 20.0
KL = _Axis("kl", "KL on everyday answers, nats a token", "max_kl")
# What is to change and what is not, of words and of requests.
EFFECTS = (
    _Axis("forbidden_ratio", "perplexity of what is forbidden,\nrelative to the base"),
    _Axis("refused", "harmful requests refused"),
)
COSTS = (
    _Axis(
        "benign_ratio", "rise of benign words' perplexity, %", "max_benign_loss",
        100.0, -1.0,
    ),
    _Axis("false_refusals", "more benign requests refused, %", "max_false_refusals",
          100.0),
)  # fmt: skip


def sweep_figure(
    sweep: Sequence[Mapping[str, Any]],
    limits: Mapping[str, float],
    narrow: bool = False,
) -> Figure | None:
    """Draw effect against drift for each strength that was tried on the tuning split.

    Parameters
    ----------
    sweep : sequence of mapping
        Of an intervention's metrics, in the order of strength.
    limits : mapping of str to float
        What the choice kept to, by option.
    narrow : bool, default False
        One picture below the other.

    Returns
    -------
    Figure or None
        None where no effect was measured.
    """
    effect = next((axis for axis in EFFECTS if axis.key in sweep[0]), None)
    drifts = [axis for axis in (KL, *COSTS) if axis.key in sweep[0]]
    if effect is None or not drifts:
        return None
    shape = (len(drifts), 1) if narrow else (1, len(drifts))
    size = (NARROW, 2.7 * len(drifts)) if narrow else (3.8 * len(drifts), 3.6)
    figure = Figure(figsize=size, layout="constrained")
    every = list(figure.subplots(*shape, sharey=True, squeeze=False).flat)
    for axes, drift in zip(every, drifts, strict=True):
        _draw(axes, sweep, effect, drift, limits.get(drift.limit))
        if narrow or axes is every[0]:
            axes.set_ylabel(effect.label)
    for point in sweep:
        if point.get("chosen") and "strength" in point:
            every[0].set_title(
                f"chosen: strength {point['strength']:.3g}", loc="left", fontsize=10,
                color=FORBIDDEN,
            )  # fmt: skip
    return figure


def _draw(
    axes: Axes,
    sweep: Sequence[Mapping[str, Any]],
    effect: _Axis,
    drift: _Axis,
    limit: float | None,
) -> None:
    clean(axes)
    x, y = drift.values(sweep), effect.values(sweep)
    # Only strengths have an order, in which one leads to the next.
    line = "-" if "strength" in sweep[0] else ""
    axes.plot(x, y, color=BENIGN, marker="o", markersize=4, linewidth=1.2, ls=line)
    for at, point in enumerate(sweep):
        if point.get("chosen"):
            axes.plot(x[at], y[at], "o", color=FORBIDDEN, markersize=9)
    # Drift is far or near as seen from none at all.
    ends = [0.0, *filter(math.isfinite, x)]
    if limit is not None and drift.factor * limit <= FAR * max(map(abs, ends)):
        ends.append(drift.factor * limit)
        _draw_limit(axes, ends[-1])
    room = 0.06 * (max(ends) - min(ends)) or 1.0
    axes.set_xlim(min(ends) - room * (min(ends) < 0.0), max(ends) + room)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel(drift.label)
    if effect.key == "forbidden_ratio":
        axes.set_yscale("log")
        ratio_axis(axes.yaxis)
    else:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))


def _draw_limit(axes: Axes, limit: float) -> None:
    axes.axvline(limit, color=FAINT, linewidth=1.0, linestyle="--", zorder=0)
    axes.annotate(
        "limit", (limit, 0.02), xycoords=("data", "axes fraction"), xytext=(-3, 0),
        textcoords="offset points", color=RELATED, fontsize=9, ha="right",
    )  # fmt: skip
