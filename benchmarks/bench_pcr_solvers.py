# SPDX-License-Identifier: Apache-2.0
"""The exact solver against general ones on the reduced problem (needs CVXPY, SciPy).

The general solvers are given the reduced problem: Gram matrix, and outputs and concepts
in an orthonormal basis of their span with m more dimensions. Reduction is not timed.
"""

import argparse
import time

import cvxpy as cp
import numpy as np
from scipy.optimize import minimize

import cintervene as ci


def problem(m, n, seed=0):
    rng = np.random.default_rng(seed)
    d_out, d_in = 2 * m + n, 4 * m
    inputs = np.sqrt(0.1) * rng.standard_normal((m, d_in))
    inputs += np.sqrt(0.9) * rng.standard_normal(d_in)
    outputs = rng.standard_normal((m, d_out))
    concepts = 0.7 * rng.standard_normal((n, d_out))
    concepts += 0.8 * outputs[rng.integers(0, m, n)]
    distances = np.linalg.norm(outputs[:, None] - concepts, axis=2)
    return inputs, outputs, concepts, 1.1 * float(np.quantile(distances, 0.5))


def relaxation(inputs, outputs, concepts, radius, solver):
    """The semidefinite program that has the same optimum."""
    m, d = outputs.shape
    cost = np.linalg.inv(inputs @ inputs.T)
    z = cp.Variable((m + d, m + d), PSD=True)
    r = outputs[:, None] - concepts
    need = radius**2 - np.sum(r**2, axis=2)
    constraints = [z[m:, m:] == np.eye(d)]
    constraints += [z[j, j] + 2 * r[j] @ z[j, m:] >= need[j] for j in range(m)]
    task = cp.Problem(cp.Minimize(cp.trace(cost @ z[:m, :m])), constraints)
    task.solve(solver=solver)
    return task.value


def sequential(inputs, outputs, concepts, radius):
    """SLSQP on the displacements, from a feasible point."""
    m, d = outputs.shape
    cost = np.linalg.inv(inputs @ inputs.T)
    rule = ci.pcr(inputs, outputs, concepts, radius, method="most_violated")

    def margins(x):
        moved = outputs + x.reshape(m, d)
        return np.sum((moved[:, None] - concepts) ** 2, axis=2).ravel() - radius**2

    def slopes(x):
        away = 2 * (outputs + x.reshape(m, d))[:, None] - 2 * concepts
        jacobian = np.zeros((m, len(concepts), m, d))
        jacobian[np.arange(m), :, np.arange(m)] = away
        return jacobian.reshape(-1, m * d)

    found = minimize(
        lambda x: np.sum(x.reshape(m, d) * (cost @ x.reshape(m, d))),
        rule.displacements.ravel(),
        jac=lambda x: 2 * (cost @ x.reshape(m, d)).ravel(),
        constraints={"type": "ineq", "fun": margins, "jac": slopes},
        method="SLSQP",
        options={"maxiter": 500, "ftol": 1e-10},
    )
    return found.fun


def timed(run):
    start = time.perf_counter()
    value = run()
    return value, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="1,10 4,8 8,16 12,24")
    args = parser.parse_args()
    for size in args.sizes.split():
        m, n = map(int, size.split(","))
        data = problem(m, n)
        ci.pcr(*data)
        exact, ours = timed(lambda data=data: ci.pcr(*data))
        print(f"m {m}, n {n}: {1e3 * ours:.2f} ms, certified {exact.certified}")
        others = {
            "CVXPY + Clarabel": lambda data=data: relaxation(*data, cp.CLARABEL),
            "CVXPY + SCS": lambda data=data: relaxation(*data, cp.SCS),
            "SciPy SLSQP": lambda data=data: sequential(*data),
        }
        for name, run in others.items():
            cost, seconds = timed(run)
            print(
                f"  {name:<20} {1e3 * seconds:10.1f} ms {seconds / ours:10.0f} x, "
                f"cost {cost / exact.cost - 1:+.1e}"
            )


if __name__ == "__main__":
    main()
