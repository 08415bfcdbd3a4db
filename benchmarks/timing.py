# SPDX-License-Identifier: Apache-2.0
"""Timing of alternatives side by side, for all benchmarks."""

import time
from collections.abc import Callable

import cintervene as ci


def best_times(
    candidates: dict[str, Callable[[], object]], repeats: int = 15
) -> dict[str, float]:
    """Least seconds of each candidate; they take turns, so that noise hits all."""
    for run in candidates.values():
        run()
    best = dict.fromkeys(candidates, float("inf"))
    for _ in range(repeats):
        for name, run in candidates.items():
            start = time.perf_counter()
            run()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def report(title: str, best: dict[str, float], ours: str) -> None:
    """Print milliseconds, and how many times as long as ours each one took."""
    config = ci.show_config()
    print(f"{title} ({config['cpu']}, {config['threads']} threads)")
    for name, seconds in best.items():
        print(f"  {name:<40} {1e3 * seconds:9.2f} ms {seconds / best[ours]:8.2f} x")
