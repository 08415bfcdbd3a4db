# SPDX-License-Identifier: Apache-2.0
"""Plots of effect against drift: interventions at every strength, and peers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from cintervene.evaluate.report.plot_text import plot_text

__all__ = ["FRONTS", "Front", "draw_front"]

PEER_LINES = ("--", ":", "-.")
SOFT = "#6b7480"


@dataclass(frozen=True, slots=True)
class Front:
    """Effect against drift, for one kind of effect.

    Attributes
    ----------
    key : str
        Its name in sweeps and peers.
    label : str
        Of the axis.
    held_out : callable
        Takes a study's content and a defence's name; the effect on held-out data.
    logarithmic : bool
        Whether it is a ratio; otherwise it is a share.
    """

    key: str
    label: str
    held_out: Callable[[Mapping[str, Any], str], float | None]
    logarithmic: bool

    def swept(self, content: Mapping[str, Any]) -> dict[str, list[tuple[float, float]]]:
        """Pairs (KL, effect) of the interventions whose sweep measured this effect."""
        lines = {
            name: _pairs(one["sweep"], self.key)
            for name, one in content["interventions"].items()
        }
        return {name: pairs for name, pairs in lines.items() if pairs}

    def peers(self, content: Mapping[str, Any]) -> dict[str, list[tuple[float, float]]]:
        """Pairs (KL, effect) of each peer, in the order of its strengths."""
        names = dict.fromkeys(peer["name"] for peer in content["peers"])
        lines = {
            name: _pairs([p for p in content["peers"] if p["name"] == name], self.key)
            for name in names
        }
        return {name: pairs for name, pairs in lines.items() if pairs}


def _pairs(points: list[Mapping[str, Any]], effect: str) -> list[tuple[float, float]]:
    pairs = [(point.get("kl"), point.get(effect)) for point in points]
    return sorted((x, y) for x, y in pairs if x is not None and y is not None)


def _forbidden(content: Mapping[str, Any], name: str) -> float | None:
    words = content["measurements"][name]["forbidden"]
    value: float | None = words["all_tokens"]["together"]["effect"]["value"]
    return value


def _refused(content: Mapping[str, Any], name: str) -> float | None:
    """Share of the direct requests that were refused."""
    wanted = ("harmful", name, "direct request")
    for row in content["rows"]:
        if (row["suite"], row["defence"], row["attack"]) == wanted:
            value: float = row["outcomes"]["refused"]["value"]
            return value
    return None


FRONTS = {
    "front": Front(
        "forbidden_ratio",
        "forbidden words' perplexity,\nrelative to the base",
        _forbidden,
        logarithmic=True,
    ),
    "refusals": Front(
        "refused", "harmful requests refused", _refused, logarithmic=False
    ),
}


def draw_front(
    front: Front,
    content: Mapping[str, Any],
    styles: Mapping[str, tuple[str, str]],
    figure: Figure,
    axes: Axes,
) -> Figure:
    """Plot sweeps as lines, measurements on held-out data as stars, peers dashed."""
    for name, pairs in front.swept(content).items():
        colour, marker = styles[name]
        kl, effect = zip(*pairs, strict=True)
        label = plot_text(name)
        axes.plot(kl, effect, color=colour, marker=marker, ms=4, lw=1.1, label=label)
        measured = content["measurements"].get(name)
        if measured is not None:
            drift = measured["drift"]["kl"]["value"]
            value = front.held_out(content, name)
            if drift is not None and value is not None:
                axes.plot(drift, value, "*", color=colour, ms=13)
    for place, (name, pairs) in enumerate(front.peers(content).items()):
        kl, effect = zip(*pairs, strict=True)
        line = PEER_LINES[place % len(PEER_LINES)]
        label = plot_text(name)
        axes.plot(kl, effect, line, color=SOFT, marker="x", ms=5, lw=1.1, label=label)
    if front.logarithmic:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g} x"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:g}%"))
    axes.set_xlabel("KL on everyday answers, nats a token")
    axes.set_ylabel(front.label)
    axes.legend(frameon=False)
    return figure
