# SPDX-License-Identifier: Apache-2.0
"""Draws certificate.svg: the exact solution and the most-violated rule in the plane."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import cintervene as ci

OUTPUT = np.array([[0.0, 0.0]])
CONCEPTS = np.array([[0.65, -0.69], [0.14, -0.14], [-0.26, 0.16], [-0.86, 0.93]])
RADIUS = 0.8


def way(method, pushes):
    """Where the output is after each of the first pushes."""
    places = [OUTPUT[0]]
    for limit in range(1, pushes + 1):
        arguments = (np.ones((1, 1)), OUTPUT, CONCEPTS, RADIUS)
        solution = ci.pcr(*arguments, method=method, max_iterations=limit)
        places.append((OUTPUT + solution.displacements)[0])
    return np.array(places), solution


def main() -> None:
    """Write the figure beside this file, the same bytes at every call."""
    plt.switch_backend("svg")
    plt.rcParams["svg.hashsalt"] = "certificate"
    exact = ci.pcr(np.ones((1, 1)), OUTPUT, CONCEPTS, RADIUS)
    rule = ci.pcr(np.ones((1, 1)), OUTPUT, CONCEPTS, RADIUS, method="most_violated")
    places, _ = way("most_violated", rule.iterations)
    target = (OUTPUT + exact.displacements)[0]
    figure, axes = plt.subplots(figsize=(5.2, 4.6))
    for concept, multiplier in zip(CONCEPTS, exact.multipliers[0], strict=True):
        active = multiplier > 0
        colour = "#b03a2e" if active else "#909497"
        axes.add_patch(plt.Circle(concept, RADIUS, color=colour, alpha=0.16, lw=0))
        axes.add_patch(plt.Circle(concept, RADIUS, fill=False, color=colour, lw=0.8))
        axes.plot(*concept, "+", color=colour)
        if active:
            label = f"multiplier {multiplier:.2f}"
            side = -1 if concept[0] < 0 else 1
            axes.annotate(
                label,
                concept,
                xytext=(8 * side, -3),
                textcoords="offset points",
                ha="right" if side < 0 else "left",
            )
    axes.plot(*places.T, "o--", color="#2e4053", ms=3, lw=1, label="most violated")
    axes.plot(*np.array([OUTPUT[0], target]).T, "o-", color="#1e8449", label="exact")
    axes.plot(*OUTPUT[0], "ko", ms=5)
    title = f"cost {exact.cost:.4f} (proved) against {rule.cost:.4f}"
    axes.set(aspect="equal", title=title, xlim=(-1.7, 1.5), ylim=(-1.5, 1.7))
    axes.legend(loc="lower right", frameon=False)
    figure.savefig(
        Path(__file__).with_suffix(".svg"), bbox_inches="tight", metadata={"Date": None}
    )


if __name__ == "__main__":
    main()
