# SPDX-License-Identifier: Apache-2.0
"""What the methods' algebra costs, against the formulas that it replaced.

python benchmarks/bench_algebra.py                      # a layer of Llama-3-8B at 1/4
python benchmarks/bench_algebra.py guard --d-out 4096   # one part, other widths

Random rows. Both ways take turns in one process; given are the least CPU seconds of
each, and the most memory that each had beyond what was there before.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
from pathlib import Path
from time import process_time

import numpy as np

import cintervene as ci
from cintervene.methods.pcr.layerwise import output_cost, truncate_rank
from cintervene.solvers.pcr import pcr_measured
from cintervene.solvers.problem import MeasuredInputs

RIDGE, CHUNK = 0.01, 2048


def resident(field):
    """Bytes of this process: VmRSS now, VmHWM at most since `used` began."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith(field + ":")]
    return 1024 * int(line.split()[1])


def used(run):
    """Seconds of processors and most bytes that a call took, and what it returned."""
    Path("/proc/self/clear_refs").write_text("5")
    before, start = resident("VmRSS"), process_time()
    result = run()
    return process_time() - start, resident("VmHWM") - before, result


def compare(title, before, after, turns):
    """Print both ways of computing one thing, which must agree."""
    least, most = [np.inf, np.inf], [0, 0]
    for _ in range(turns):
        results = []
        for way, run in enumerate((before, after)):
            seconds, size, result = used(run)
            least[way], most[way] = min(least[way], seconds), max(most[way], size)
            results.append(result)
        error = np.abs(results[0] - results[1]).max() / np.abs(results[0]).max()
    print(
        f"{title}: {1e3 * least[0]:.2f} -> {1e3 * least[1]:.2f} ms, "
        f"{least[0] / least[1]:.2f} x; {most[0] / 1e6:.0f} -> {most[1] / 1e6:.0f} MB; "
        f"differ by {error:.0e}",
        flush=True,
    )


def rows(n, width, seed):
    """Rows of a common direction and noise, as activations are."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, width), dtype=np.float32)
    return x * np.float32(0.5) + rng.standard_normal(width, dtype=np.float32)


def second_moments(x):
    """What inputs are measured by as soon as there are many: the (d_in, d_in) form."""
    total = np.zeros((x.shape[1], x.shape[1]))
    for at in range(0, len(x), CHUNK):
        chunk = x[at : at + CHUNK].astype(np.float64)
        total += chunk.T @ chunk
    total /= len(x)
    total[np.diag_indices(len(total))] += RIDGE * np.trace(total) / len(total)
    return total


def show_guard(args):
    """A shift of the guard, from its solution to the layer's outputs."""
    rng = np.random.default_rng(0)
    root = rng.standard_normal((args.d_out, args.d_out))
    root += root.T
    directions = rows(args.tokens, args.d_out, 1).astype(np.float64)
    kept = directions @ root
    for positions in (1, 8):
        bounds = -rng.uniform(1.0, 5.0, (positions, args.tokens))
        solution = ci.pcr(
            np.eye(positions), np.zeros((positions, args.d_out)), None, 0.0,
            halfspaces=(directions, bounds),
        )  # fmt: skip
        compare(
            f"a guard's shift of {positions}, {args.tokens} tokens, d_out {args.d_out}",
            lambda: ((root @ solution.update.left) @ solution.update.right).T,  # noqa: B023
            lambda: -solution.multipliers @ kept,  # noqa: B023
            20,
        )


def show_few(args):
    """A norm of fewer inputs than dimensions, given in chunks, and its first solve."""
    benign, few = rows(args.few, args.d_in, 2), rows(8, args.d_in, 3)

    def before():
        return ci.Preserve.from_matrix(second_moments(benign)).solve(few)

    def after():
        moments = ci.BenignMoments(args.d_in)
        for at in range(0, len(benign), CHUNK):
            moments.add(benign[at : at + CHUNK])
        return moments.factored(RIDGE).solve(few)

    title = f"norm of {args.few} inputs, d_in {args.d_in}"
    compare(title, before, after, args.turns)


def show_ball(args):
    """The ball of a layer's changes: to make it, and a step in it."""
    rng = np.random.default_rng(4)
    benign = rows(2 * args.d_in, args.d_in, 5)

    def moments():
        return ci.BenignMoments(args.d_in).add(benign)

    gradient = rng.standard_normal((args.d_in, args.d_out))

    def before():
        preserve = moments().preserve(RIDGE)
        descent = ci.ProjectedGradient(np.eye(args.d_in), 1.0, preserve)
        response = descent.respond(gradient)
        return descent.step(gradient, length=0.5, response=response)

    def after():
        direction = np.ascontiguousarray(gradient.T)
        response = moments().factored(RIDGE).solve(direction)
        rate = 0.5 / np.sqrt(np.vdot(response, direction))
        return -rate * response.T

    title = f"a ball and its first step, d_out {args.d_out}, d_in {args.d_in}"
    compare(title, before, after, args.turns)


def show_strengths(args):
    """Another strength in the first layer of pcr, rank cut to 64."""
    benign = rows(2 * args.d_in, args.d_in, 6)
    inputs, outputs = rows(args.rows, args.d_in, 7), rows(args.rows, args.d_out, 8)
    directions = rows(32, args.d_out, 9)
    offsets = outputs @ directions.T - 1.0
    offsets[np.random.default_rng(10).random(offsets.shape) > 0.05] = np.inf
    preserve = ci.BenignMoments(args.d_in).add(benign).preserve(RIDGE)
    preserve.solve(inputs[:1])
    kept = MeasuredInputs.of(inputs, preserve)
    problem = {"slack": 0.1, "halfspaces": (directions, offsets)}

    def before():
        solution = ci.pcr(inputs, outputs, None, 0.0, preserve=preserve, **problem)
        update = solution.update
        cost = update.left @ preserve.gram(update.right) @ update.left.T
        return truncate_rank(update, cost, 64).matrix()

    def after():
        solution = pcr_measured(kept, outputs, None, 0.0, **problem)
        cost = output_cost(solution, preserve)
        return truncate_rank(solution.update, cost, 64).matrix()

    title = f"a strength, {args.rows} rows, d_out {args.d_out}, d_in {args.d_in}"
    compare(title, before, after, args.turns)


def main():
    kinds = {
        "guard": show_guard,
        "few": show_few,
        "ball": show_ball,
        "strengths": show_strengths,
    }
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=", ".join(kinds))
    parser.add_argument("--d-out", type=int, default=1024)
    parser.add_argument("--d-in", type=int, default=3584)
    parser.add_argument("--rows", type=int, default=622, help="constrained ones")
    parser.add_argument("--few", type=int, default=983, help="inputs of a guard's norm")
    parser.add_argument("--tokens", type=int, default=12)
    parser.add_argument("--turns", type=int, default=3)
    args = parser.parse_args()
    for kind in args.kinds or kinds:
        kinds[kind](args)


if __name__ == "__main__":
    main()
