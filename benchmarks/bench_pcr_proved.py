# SPDX-License-Identifier: Apache-2.0
"""Share of generated problems that the exact solver proves optimal, by kind."""

import argparse
import sys
import time
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from support.generated_pcr import generated

import cintervene as ci


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=2000)
    args = parser.parse_args()
    rows = defaultdict(list)
    seconds = 0.0
    for number in range(args.problems):
        kind, arguments = generated(number)
        start = time.perf_counter()
        solution = ci.pcr(**arguments)
        seconds += time.perf_counter() - start
        residual = max(solution.residuals.values())
        rows[kind].append((solution.certified, residual, abs(solution.gap)))
    print(f"{args.problems} problems in {seconds:.2f} s")
    print(f"{'kind':<20} {'certified':>12} {'residual':>10} {'gap':>10}")
    for kind, found in sorted(rows.items()):
        certified, residuals, gaps = zip(*found, strict=True)
        share = f"{sum(certified)}/{len(found)}"
        print(f"{kind:<20} {share:>12} {max(residuals):>10.1e} {max(gaps):>10.1e}")


if __name__ == "__main__":
    main()
