# SPDX-License-Identifier: Apache-2.0
"""A step of tsr and arr on a head against autograd on the change of its weight.

The full-matrix loops are written as they usually are: the change is a parameter of the
size of the weight, logits are computed with it, and after each step it is scaled back
into the ball. They are given the base logits, so the weight itself is not read.
"Traffic" copies logits and gradient once: what any method must at least move.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch

import cintervene as ci


def problem(m: int, d: int, vocab: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(m, d)).astype(np.float32) / np.float32(d**0.5)
    logits = rng.normal(size=(m, vocab)).astype(np.float32) * np.float32(2)
    return inputs, logits


def losses(delta: torch.Tensor, h: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
    moved = base + h @ delta.T
    return torch.logsumexp(moved, 1) - torch.logsumexp(moved[:, :2], 1)


class FullMatrix:
    """One step of projected descent (or ascent with simplex weights) by autograd."""

    def __init__(self, inputs: np.ndarray, logits: np.ndarray, radius: float) -> None:
        self.h, self.base = torch.from_numpy(inputs), torch.from_numpy(logits)
        self.radius = radius
        self.delta = torch.zeros(logits.shape[1], inputs.shape[1], requires_grad=True)
        self.weights = torch.full((len(inputs),), 1.0 / len(inputs))

    def project(self) -> None:
        norm = self.delta.norm()
        if norm > self.radius:
            self.delta.mul_(self.radius / norm)

    def tsr(self) -> None:
        losses(self.delta, self.h, self.base).mean().backward()
        with torch.no_grad():
            self.delta.sub_(self.delta.grad, alpha=5.0)
            self.project()
        self.delta.grad = None

    def arr(self) -> None:
        each = losses(self.delta, self.h, self.base)
        (each * self.weights).sum().backward()
        with torch.no_grad():
            self.delta.add_(self.delta.grad, alpha=5.0)
            self.project()
            moved = (self.weights - 0.1 * each.detach()).numpy()
            self.weights.copy_(torch.from_numpy(ci.project_simplex(moved)))
        self.delta.grad = None


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def per_step(solve: Callable[..., ci.RegionSolution], steps: int) -> float:
    """Seconds of one step: what more steps cost, without setting up and finishing."""
    short = min(seconds(lambda: solve(1)) for _ in range(2))
    return min((seconds(lambda: solve(1 + steps)) - short) / steps for _ in range(3))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[32, 8])
    parser.add_argument("--d-in", type=int, default=4096)
    parser.add_argument("--vocab", type=int, default=128256)
    parser.add_argument("--radius", type=float, default=200.0)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    config = ci.show_config()
    print(f"head ({args.vocab}, {args.d_in}), {config['cpu']} kernels")
    for m in args.rows:
        inputs, logits = problem(m, args.d_in, args.vocab)
        copy, gradient = np.empty_like(logits), np.empty_like(logits)

        def traffic(a=copy, b=gradient, x=logits) -> None:
            np.copyto(a, x)
            np.copyto(b, x)

        traffic()
        moved = min(seconds(traffic) for _ in range(9))
        full = FullMatrix(inputs, logits, args.radius)
        for name, ours in (("tsr", ci.tsr), ("arr", ci.arr)):

            def solve(steps: int, ours=ours, h=inputs, x=logits) -> ci.RegionSolution:
                return ours(
                    h, x, [0, 1], args.radius, tolerance=0.0, max_iterations=steps
                )

            solution = solve(1 + args.steps)
            assert solution.iterations == 1 + args.steps, solution
            step = per_step(solve, args.steps)
            other = getattr(full, name)
            other()
            torch_step = min(seconds(other) for _ in range(args.repeats))
            print(
                f"  m {m:3d} {name}: {1e3 * step:8.2f} ms a step; full-matrix autograd "
                f"{1e3 * torch_step:8.1f} ms, {torch_step / step:6.1f} x; traffic "
                f"{1e3 * moved:6.2f} ms, {moved / step:5.2f} x"
            )


if __name__ == "__main__":
    main()
