# SPDX-License-Identifier: Apache-2.0
"""Every function that takes arrays, as a call on a list of arrays."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import cintervene as ci
from cintervene import _core
from cintervene.solvers import packed


@dataclass(frozen=True)
class Entry:
    """A call, the arrays that it takes, and the places of those that it writes."""

    name: str
    call: Callable[..., Any]
    arrays: list[np.ndarray]
    written: tuple[int, ...] = ()
    copied: tuple[int, ...] = ()  # which NumPy has to know how to copy

    @property
    def places(self) -> list[int]:
        """Numbers of the arrays that may come from any library."""
        return [i for i in range(len(self.arrays)) if i not in self.copied]

    def fresh(self) -> list[np.ndarray]:
        """Copies of the arrays, to be given to one call."""
        return [array.copy() for array in self.arrays]


def results(found: Any) -> list[np.ndarray]:
    """The numbers in whatever a call returned."""
    if isinstance(found, (tuple, list)):
        return [array for one in found for array in results(one)]
    if isinstance(found, dict):
        return results([found[key] for key in sorted(found)])
    if isinstance(found, ci.LowRankUpdate):
        return [found.matrix()]
    if hasattr(found, "update"):
        return [found.update.matrix()]
    if hasattr(found, "x"):
        return [np.array(found.x)]
    return [np.array(found)] if isinstance(found, (np.ndarray, float)) else []


def _solver_entries(rng) -> list[Entry]:
    h, o, c = rng.normal(size=(3, 5)), rng.normal(size=(3, 4)), rng.normal(size=(2, 4))
    radius, u = np.full((3, 2), 2.0), rng.normal(size=(1, 4))
    b = np.full((3, 1), -0.5)
    problem = [h, o, c, radius, u, b]
    logits = rng.normal(size=(3, 6)).astype(np.float32)
    weight = rng.normal(size=(4, 5)).astype(np.float32)

    def pcr(h, o, c, radius, u, b, **options):
        return ci.pcr(h, o, c, radius, halfspaces=(u, b), **options)

    solution = pcr(*problem)

    def certify(h, o, c, radius, u, b, weight):
        found = ci.certify(solution, h, o, c, radius, halfspaces=(u, b), weight=weight)
        return found.cost, found.lower_bound, found.feasibility

    def most_violated(*arrays):
        return pcr(*arrays, method="most_violated")

    return [
        Entry("pcr", pcr, problem),
        Entry("most_violated", most_violated, problem),
        Entry("certify", certify, [*problem, weight], copied=(6,)),
        Entry("tsr", lambda h, x: ci.tsr(h, x, [0, 1], 0.5), [h, logits]),
        Entry("arr", lambda h, x: ci.arr(h, x, [[0], [1], [2]], 0.5), [h, logits]),
    ]


def _norm_entries(rng) -> list[Entry]:
    few, many = rng.normal(size=(2, 5)), rng.normal(size=(9, 5))
    rows, gradient = rng.normal(size=(3, 5)), rng.normal(size=(3, 4))
    fixed = ci.Preserve(many)

    def descent(h, gradient):
        return ci.ProjectedGradient(h, 1.0).step(gradient, 1.0)

    def resumed(h, start, gradient, response):
        steps = ci.ProjectedGradient(h, 1.0, momentum=True)
        steps.reset(start)
        return steps.respond(gradient), steps.step(gradient, response=response)

    return [
        Entry("Preserve, few", lambda x, h: ci.Preserve(x).solve(h), [few, rows]),
        Entry("Preserve, many", lambda x, h: ci.Preserve(x).solve(h), [many, rows]),
        Entry(
            "from_matrix",
            lambda p, h: ci.Preserve.from_matrix(p).solve(h),
            [np.eye(5) + 0.1, rows],
        ),
        Entry("norm", lambda w: fixed.norm(w), [rows]),
        Entry("quadratic", lambda w: fixed.gram(w), [rows]),
        Entry(
            "moments",
            lambda x: ci.BenignMoments(5).add(x).preserve().solve(few),
            [many],
        ),
        Entry("descent", descent, [rows, gradient]),
        Entry(
            "resumed descent",
            resumed,
            [rows, gradient / 9, gradient, rows @ rows.T @ gradient],
        ),
    ]


def _array_entries(rng) -> list[Entry]:
    x = rng.normal(size=(3, 6))
    single, out = x.astype(np.float32), np.zeros((3, 6))
    left, right = rng.normal(size=(3, 2)), rng.normal(size=(2, 6))
    update = ci.LowRankUpdate(left, right)

    def nll(x, grad):
        return ci.set_nll(x, [[0], [1, 2], [3]], grad=grad)

    return [
        Entry("set_nll", nll, [x, out], (1,)),
        Entry(
            "project_ball",
            lambda x, r, out: ci.project_ball(x, r, out=out),
            [single, np.ones(3), out.astype(np.float32)],
            (2,),
        ),
        Entry(
            "project_simplex",
            lambda x, out: ci.project_simplex(x, entropy=0.5, out=out),
            [x, out],
            (1,),
        ),
        Entry("LowRankUpdate", ci.LowRankUpdate, [left, right]),
        Entry("apply in place", lambda w: update.apply(w), [single], (0,)),
        Entry("apply", lambda w, out: update.apply(w, out), [x, out], (1,)),
        Entry(
            "displacement",
            ci.solvers.update.displacement,
            [single, single + 1, x],
        ),
    ]


def _core_entries(rng) -> list[Entry]:
    a, b = rng.normal(size=(3, 4)), rng.normal(size=(2, 4))
    square = a.T @ a + np.eye(4)
    factor = np.linalg.cholesky(square)
    return [
        Entry("as_float32", _core.as_float32, [a]),
        Entry("as_float64", _core.as_float64, [a.astype(np.float32)]),
        Entry("widen", lambda x: _core.widen(x, "x")[0], [a]),
        Entry("numbers", lambda x: _core.numbers(x, "x"), [a]),
        Entry("check_finite", lambda x: _core.check_finite(x, "x"), [a]),
        Entry("product_nt", _core.product_nt, [a, b]),
        Entry("product_nn", _core.product_nn, [a, b.T.copy()]),
        Entry("gram", _core.gram, [a, a]),
        Entry("moment_add", _core.moment_add, [a, packed.pack(square)], (1,)),
        Entry("packed factor", _core.spd_factor, [packed.pack(square)], (0,)),
        Entry("packed solve", _core.spd_solve, [packed.pack(factor), b], (1,)),
        Entry("spd_factor", _core.spd_factor, [square], (0,)),
        Entry("spd_solve", _core.spd_solve, [factor, b], (1,)),
    ]


def all_entries() -> list[Entry]:
    """The public functions, and those of the core that are reached in several ways."""
    rng = np.random.default_rng(0)
    found = [*_array_entries(rng), *_core_entries(rng)]
    return [*found, *_norm_entries(rng), *_solver_entries(rng)]
