# SPDX-License-Identifier: Apache-2.0
"""Point-constrained regions at the size of an 8B model's layer.

The most-violated rule in Gram space against the same iteration on full matrices in
PyTorch, and the exact solver beside it; `GEMM` is the least that any method must do:
the inner products of the inputs, and of the outputs with the concepts; and the least
for a proof, those of the active constraints with everything, in float64.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse

import numpy as np
import torch
from timing import best_times, report

import cintervene as ci


def problem(m, n, d_out, d_in, quantile, seed=0):
    rng = np.random.default_rng(seed)
    inputs = np.sqrt(0.1) * rng.standard_normal((m, d_in))
    inputs += np.sqrt(0.9) * rng.standard_normal(d_in)
    outputs = rng.standard_normal((m, d_out))
    concepts = 0.7 * rng.standard_normal((n, d_out))
    concepts += 0.8 * outputs[rng.integers(0, m, n)]
    distances = torch.cdist(torch.tensor(outputs), torch.tensor(concepts)).numpy()
    radius = 1.1 * float(np.quantile(distances, quantile))
    single = (x.astype(np.float32) for x in (inputs, outputs, concepts))
    return *single, radius


def push(y, concepts, radius):
    """Prompt, and the push of its output, of the most violated pair."""
    distances = torch.cdist(y, concepts)
    j, i = divmod(int(distances.argmin()), len(concepts))
    away = y[j] - concepts[i]
    return j, (radius - distances[j, i]) * away / distances[j, i]


def recomputing(weight, bias, inputs, concepts, radius, steps):
    """Every step multiplies by the weights and changes them."""
    squares = (inputs**2).sum(1)
    for _ in range(steps):
        j, step = push(inputs @ weight.T + bias, concepts, radius)
        weight.addr_(step, inputs[j], alpha=1.0 / float(squares[j]))


def updating(weight, outputs, inputs, concepts, radius, steps):
    """Outputs follow by their Gram matrix; every step still changes the weights."""
    gram = inputs @ inputs.T
    y = outputs.clone()
    for _ in range(steps):
        j, step = push(y, concepts, radius)
        weight.addr_(step, inputs[j], alpha=1.0 / float(gram[j, j]))
        y += torch.outer(gram[j] / gram[j, j], step)


def compare(args, m, n, full):
    data = problem(m, n, args.d_out, args.d_in, args.quantile)
    h, o, c = (torch.tensor(x) for x in data[:3])
    rule = ci.pcr(*data, method="most_violated")
    exact = ci.pcr(*data)
    steps = rule.iterations
    wide = [x.astype(np.float64) for x in (data[0], np.concatenate(data[1:3]))]
    prompts, points = np.nonzero(exact.multipliers)
    busy = wide[1][prompts] - wide[1][m + points]
    candidates = {
        "exact": lambda: ci.pcr(*data),
        "most violated": lambda: ci.pcr(*data, method="most_violated"),
        "GEMM, float32, torch": lambda: (h @ h.T, o @ c.T, c @ c.T),
        "GEMM of the active, float64": lambda: (wide[0] @ wide[0].T, busy @ wide[1].T),
    }
    if full:
        weight = torch.zeros(args.d_out, args.d_in)
        rest = (h, c, data[3], steps)
        candidates["full matrices, recomputed outputs"] = lambda: recomputing(
            weight.zero_(), o, *rest
        )
        candidates["full matrices, updated outputs"] = lambda: updating(
            weight.zero_(), o, *rest
        )
    best = best_times(candidates, args.repeats)
    title = f"m {m}, n {n}, d_out {args.d_out}, d_in {args.d_in}"
    report(f"{title}, {steps} pushes", best, "most violated")
    active = int(np.sum(exact.multipliers > 0))
    print(
        f"  exact: certified {exact.certified}, gap {exact.gap:.0e}, "
        f"{active} active, {exact.iterations} Newton steps; "
        f"the rule costs {rule.cost / exact.cost:.3f} times as much"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--d-out", type=int, default=4096)
    parser.add_argument("--d-in", type=int, default=14336)
    parser.add_argument("--quantile", type=float, default=0.02)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--large", action="store_true", help="m 256, n 1000 too")
    args = parser.parse_args()
    compare(args, 1, 100, full=True)
    compare(args, 32, 100, full=True)
    if args.large:
        compare(args, 256, 1000, full=False)


if __name__ == "__main__":
    main()
