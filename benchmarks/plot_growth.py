# SPDX-License-Identifier: Apache-2.0
"""How times grow with sizes, as curves beside the least that any method must do."""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from bench_pcr import problem
from matplotlib.ticker import LogLocator, StrMethodFormatter
from timing import best_times

import cintervene as ci
from cintervene.utils.runtime import thread_limit

OUT = Path(__file__).parent.parent / "docs" / "images" / "growth.png"

Pair = tuple[Callable[[], object], Callable[[], object]]


def pcr(m: int = 16, n: int = 100, d: int = 2048) -> Pair:
    """The exact solution with its proof, and the inner products it begins with."""
    data = problem(m, n, d, 7 * d // 2, 0.02)
    h, o, c = (x.astype(np.float64) for x in data[:3])
    return lambda: ci.pcr(*data), lambda: (h @ h.T, o @ c.T)


def loss(vocabulary: int = 128256) -> Pair:
    """Loss and gradient of 64 rows of logits, and a copy of them."""
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((64, vocabulary)).astype(np.float32)
    copy = np.empty_like(logits)
    ids = np.arange(0, vocabulary, vocabulary // 100)
    return lambda: ci.set_nll(logits, ids, grad=True), lambda: np.copyto(copy, logits)


def apply(rank: int = 32) -> Pair:
    """A change of (4096, 14336) float32 weights in place, and a copy of them."""
    rng = np.random.default_rng(0)
    update = ci.LowRankUpdate(
        1e-3 * rng.standard_normal((4096, rank)), rng.standard_normal((rank, 14336))
    )
    weights = np.zeros((4096, 14336), np.float32)
    copy = np.empty_like(weights)
    return lambda: update.apply(weights), lambda: np.copyto(copy, weights)


def with_threads(count: int, pair: Pair) -> Pair:
    """The same with a limit on our threads; the copy has one."""

    def limited() -> None:
        with thread_limit(count):
            pair[0]()

    return limited, pair[1]


def panels(threads: int) -> Iterator[tuple[str, str, dict[int, Pair]]]:
    """Title, name of what is beside our time, and pairs by size."""
    products = "inner products, float64"
    yield "prompts m (n 100, d 2048)", products, {m: pcr(m=m) for m in (1, 4, 16, 64)}
    yield (
        "concepts n (m 16, d 2048)",
        products,
        {n: pcr(n=n) for n in (10, 30, 100, 300, 1000)},
    )
    yield (
        "width d of the outputs (m 16, n 100)",
        products,
        {d: pcr(d=d) for d in (256, 512, 1024, 2048, 4096)},
    )
    yield (
        "vocabulary V (loss and gradient, 64 rows)",
        "copy of the logits",
        {v: loss(v) for v in (4000, 16000, 64000, 128256, 256000)},
    )
    yield (
        "rank of a change (4096 x 14336, float32)",
        "copy of the weights",
        {rank: apply(rank) for rank in (1, 4, 16, 32, 64)},
    )
    counts = sorted({1, 2, threads})
    pair = apply()
    yield (
        "threads (change of rank 32)",
        "copy of the weights, one thread",
        {count: with_threads(count, pair) for count in counts if count <= threads},
    )


def draw(axes: plt.Axes, title: str, limit: str, pairs: dict[int, Pair]) -> None:
    """Measure one panel and draw it."""
    ours, least = [], []
    for ours_run, least_run in pairs.values():
        best = best_times({"ours": ours_run, "least": least_run}, 15)
        ours.append(1e3 * best["ours"])
        least.append(1e3 * best["least"])
    sizes = list(pairs)
    print(
        title,
        *(
            f"{s}: {a:.2f} / {b:.2f} ms"
            for s, a, b in zip(sizes, ours, least, strict=True)
        ),
        sep="\n  ",
    )
    axes.loglog(sizes, ours, "o-", color="#b03a2e", label="cintervene")
    axes.loglog(sizes, least, "s--", color="#566573", label=limit)
    axes.set_xticks(sizes, [str(size) for size in sizes], fontsize=8)
    axes.minorticks_off()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.set_title(title, fontsize=9)
    axes.legend(fontsize=7)
    axes.grid(alpha=0.3)


def main() -> None:
    """Write the figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    figure, grid = plt.subplots(2, 3, figsize=(12, 6.4), layout="constrained")
    threads = int(ci.show_config()["threads"])
    for axes, panel in zip(grid.flat, panels(threads), strict=True):
        draw(axes, *panel)
    for row in grid:
        row[0].set_ylabel("ms")
    figure.savefig(args.out, dpi=110)


if __name__ == "__main__":
    main()
