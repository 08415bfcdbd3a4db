# SPDX-License-Identifier: Apache-2.0
"""Share of generated problems that the exact solver proves optimal, by kind."""

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from support.generated_pcr import generated
from support.reference_pcr import almost_on_a_concept

import cintervene as ci

SIZES = (1, 1), (2, 3), (3, 4), (8, 4)
DISTANCES = 1e-12, 1e-11, 1e-10, 1e-9, 3e-9, 1e-8, 3e-8, 1e-7, 3e-7, 1e-6


def near(seeds: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Problems with an output almost on a concept, the hardest ones."""
    for size in SIZES:
        for distance in DISTANCES:
            for seed in range(seeds):
                problem = almost_on_a_concept(seed, *size, distance)
                names = ("inputs", "outputs", "concepts", "radius")
                arguments = {name: getattr(problem, name) for name in names}
                yield f"{distance:.0e} away", arguments


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=2000)
    parser.add_argument("--near", action="store_true", help="outputs near concepts")
    args = parser.parse_args()
    each = args.problems // (len(SIZES) * len(DISTANCES))
    problems = near(each) if args.near else map(generated, range(args.problems))
    rows = defaultdict(list)
    seconds = 0.0
    for kind, arguments in problems:
        start = time.perf_counter()
        solution = ci.pcr(**arguments)
        seconds += time.perf_counter() - start
        residual = max(solution.residuals.values())
        rows[kind].append((solution.certified, residual, abs(solution.gap)))
    print(f"{sum(map(len, rows.values()))} problems in {seconds:.2f} s")
    print(f"{'kind':<20} {'certified':>12} {'residual':>10} {'gap':>10}")
    for kind, found in sorted(rows.items()):
        certified, residuals, gaps = zip(*found, strict=True)
        share = f"{sum(certified)}/{len(found)}"
        print(f"{kind:<20} {share:>12} {max(residuals):>10.1e} {max(gaps):>10.1e}")


if __name__ == "__main__":
    main()
