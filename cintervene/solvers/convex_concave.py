# SPDX-License-Identifier: Apache-2.0
"""A convex-concave procedure: a local optimum where the exact solve proves none.

The exact solve is the dual problem in C (`_core.pcr_exact`), whose multipliers prove
its result to be the global optimum. `cintervene.pcr` calls `repair` only where that
solve stalls, or ends with a relative gap or residual above 1e-9: when the outputs leave
too few dimensions free for the semidefinite relaxation to be tight, or by rounding near
degenerate problems. What is found here is feasible and locally optimal; it is proved to
be the global optimum only if some multipliers close the gap.

Each step replaces the outside of every ball by the half-space that touches the ball
nearest to the present output. It lies within the outside, and half-spaces are solved
exactly (Yuille and Rangarajan, Neural Computation 15, 2003). A start from which no step
can be made is first made feasible by the most-violated rule. Where nothing feasible is
found, or it costs more than the bound, there are the other starts of `starts`.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from cintervene import _core
from cintervene.solvers.problem import Problem
from cintervene.solvers.solution import Status
from cintervene.solvers.starts import starts
from cintervene.utils.arrays import Floats

__all__ = ["repair"]

# Limits of the most-violated rule, of the convex-concave steps, and of how often balls
# join within a step.
_MAX_PUSHES = 300
_MAX_STEPS = 45
_MAX_ROUNDS = 50
# Relative changes of the cost that count as none while starts are compared, and at the
# end; and of the coefficients, waited for where the gap is below _NEAR_GAP.
_COARSE = 1e-3
_COST_TOLERANCE = 1e-12
_MOVE_TOLERANCE = 1e-11
_ROUNDING = 1e-15
_NEAR_GAP = 1e-4
# Above this gap other starts are worth their time, but so many only once a feasible
# change is known.
_RESTART_GAP = 1e-6
_FEW_STARTS = 3
# Violation, in tolerances, from which on a change is not feasible: that of the core.
_BELIEVED = 10.0


@dataclass(frozen=True)
class _Change:
    """A change, what it costs, and multipliers if it is the end of a step."""

    coefficients: Floats  # A (m, d_out)
    multipliers: Floats  # (m, n + k)
    cost: float


def repair(
    problem: Problem,
    result: "_core.Found",
    lower_bound: float,
    tolerance: float,
    max_iterations: int,
) -> "_core.Found":
    """Turn a result that is not final into a locally optimal one, if possible.

    Parameters
    ----------
    problem : Problem
    result : dict
        What `_core.pcr_exact` returned.
    lower_bound : float
        What its multipliers prove.
    tolerance, max_iterations
        As for `cintervene.pcr`.

    Returns
    -------
    dict
        Like `result`; `result` itself where no feasible change was found.
    """
    descent = _Descent(problem, result, tolerance, max_iterations)
    enough = lower_bound * (1.0 + _RESTART_GAP)
    best: _Change | None = None
    for number, coefficients in enumerate(starts(problem, result, lower_bound)):
        if descent.is_over or (best is not None and number >= _FEW_STARTS):
            break
        end = descent.from_start(coefficients)
        if end is not None and (best is None or end.cost < best.cost):
            best = end
        if best is not None and best.cost <= enough:
            break
    return result if best is None else descent.evaluated(descent.finish(best))


class _Descent:
    """Convex-concave steps on one problem, and the iterations that they took."""

    def __init__(
        self,
        problem: Problem,
        result: "_core.Found",
        tolerance: float,
        max_iterations: int,
    ) -> None:
        self.problem, self.result = problem, result
        self.tolerance, self.max_iterations = tolerance, max_iterations
        self.iterations = result["iterations"]
        self._limit = tolerance * result["unit"]
        self._nothing = np.zeros(problem.radius.shape, dtype=bool)

    @property
    def is_over(self) -> bool:
        return self.iterations >= self.max_iterations

    def from_start(self, coefficients: Floats) -> _Change | None:
        """What is found from a start by itself, or if nothing is, once feasible."""
        found = self._descend(coefficients, _COARSE)
        if found is None:
            pushed = self._push(coefficients)
            found = None if pushed is None else self._descend(pushed, _COARSE)
        return found

    def finish(self, change: _Change) -> _Change:
        """Go on from a change until the cost says nothing any more.

        Near the least cost it says nothing about the last half of the digits, and a
        proof needs them: there the steps go on until the change itself comes to rest.
        """
        fine = self._descend(change.coefficients, _COST_TOLERANCE, change)
        best = change if fine is None else fine
        if best.cost > self._bound(best) * (1.0 + _NEAR_GAP):
            return best
        before, reach = best.coefficients, 0.0
        for _ in range(_MAX_STEPS):
            better = self._step_ahead(best, before, reach)
            if better is None or better.cost > best.cost * (1.0 + _ROUNDING):
                if reach == 0.0:
                    break
                reach = 0.0
                continue
            at_rest = _distance(best, better) <= _MOVE_TOLERANCE
            before, best = best.coefficients, better
            # Multipliers belong to where a step began: the last one has the right ones.
            if at_rest and reach == 0.0:
                break
            reach = 0.0 if at_rest else 2.0 * reach + 1.0
        return best

    def _descend(
        self, start: Floats, tolerance: float, change: _Change | None = None
    ) -> _Change | None:
        """Repeat the convex-concave step while it lowers the cost."""
        best = change or self._step(start, self._nothing)
        before, reach = start, 0.0
        for _ in range(_MAX_STEPS):
            if best is None:
                break
            better = self._step_ahead(best, before, reach)
            if better is None or better.cost > best.cost * (1.0 - tolerance):
                if reach == 0.0:
                    best = self._lower(best, better)
                    break
                reach = 0.0
                continue
            before, best = best.coefficients, better
            reach = 2.0 * reach + 1.0
        return best

    def _step_ahead(
        self, last: _Change, before: Floats, reach: float
    ) -> _Change | None:
        """The step from ahead of where the last one ended, on the way that it went.

        The tangents of any place make a valid step, and progress is slow where the way
        is straight: `reach` tells how many steps it leaves out.
        """
        ahead = reach * (last.coefficients - before)
        return self._step(last.coefficients + ahead, self._active(last))

    @staticmethod
    def _lower(best: _Change, better: _Change | None) -> _Change:
        worse = better is None or better.cost > best.cost * (1.0 + _COST_TOLERANCE)
        return best if worse or better is None else better

    def _active(self, change: _Change) -> npt.NDArray[np.bool]:
        return change.multipliers[:, : len(self.problem.concepts)] > 0.0

    def _step(self, start: Floats, active: npt.NDArray[np.bool]) -> _Change | None:
        """Solve with balls replaced by the half-spaces that touch them from here.

        At first only violated balls and those that were active count, and after each
        solve the one of each prompt that it ran into most.
        """
        problem = self.problem
        n = len(problem.concepts)
        moved = problem.outputs + problem.gram @ start
        chosen = active.copy()
        ends = problem.margins(moved - problem.outputs)[:, :n]
        for _ in range(_MAX_ROUNDS):
            _add_worst(np.where(chosen | (problem.radius == 0.0), np.inf, ends), chosen)
            change = None if self.is_over else self._solve_flat(moved, chosen)
            if change is None:
                return None
            ends = problem.margins(problem.gram @ change.coefficients)[:, :n]
            ends += self._limit
            if not np.any(ends[~chosen & (problem.radius > 0.0)] < 0.0):
                return change
        return None

    def _solve_flat(
        self, moved: Floats, chosen: npt.NDArray[np.bool]
    ) -> _Change | None:
        """The least change that keeps the chosen pairs behind their tangents."""
        problem = self.problem
        prompts, concepts = np.nonzero(chosen)
        away = moved[prompts] - problem.concepts[concepts]
        distances = np.linalg.norm(away, axis=1)
        # On a concept every direction is as good.
        away[distances == 0.0] = np.eye(1, away.shape[1])
        away /= np.where(distances > 0.0, distances, 1.0)[:, None]
        reach = np.sum(away * problem.concepts[concepts], axis=1)
        tangents = np.full((len(moved), len(prompts)), np.inf)
        columns = np.arange(len(prompts))
        tangents[prompts, columns] = -(reach + problem.radius[prompts, concepts])
        flat = replace(
            problem,
            concepts=problem.concepts[:0],
            radius=problem.radius[:, :0],
            directions=np.concatenate([problem.directions, -away]),
            offsets=np.concatenate([problem.offsets, tangents], axis=1),
        )
        left = self.max_iterations - self.iterations
        solved = _core.pcr_exact(*flat.arrays, self.tolerance, left, 0)
        self.iterations += solved["iterations"]
        if solved["outcome"] != Status.CONVERGED:
            return None
        n, k = len(problem.concepts), len(problem.directions)
        multipliers = np.zeros((len(moved), n + k))
        tangent = solved["multipliers"][:, k:][prompts, columns]
        reached = distances > 0.0
        multipliers[prompts[reached], concepts[reached]] = (
            tangent[reached] / distances[reached]
        )
        multipliers[:, n:] = solved["multipliers"][:, :k]
        coefficients = solved["coefficients"]
        return _Change(coefficients, multipliers, problem.cost(coefficients))

    def _push(self, start: Floats) -> Floats | None:
        """Make it feasible by the most-violated rule."""
        problem = self.problem
        moved = replace(problem, outputs=problem.outputs + problem.gram @ start)
        pushes = min(self.max_iterations - self.iterations, _MAX_PUSHES)
        pushed = _core.pcr_most_violated(*moved.arrays, self.tolerance, pushes, 0)
        self.iterations += pushed["iterations"]
        if pushed["outcome"] != Status.CONVERGED:
            return None
        return start + pushed["coefficients"]

    def _bound(self, change: _Change) -> float:
        """The lower bound on the cost that its multipliers give, (5)."""
        proof = _core.pcr_certify(
            *self.problem.arrays, change.coefficients, change.multipliers
        )
        return proof["lower_bound"]

    def evaluated(self, change: _Change) -> "_core.Found":
        """A result as the core returns it."""
        displacements = _core.product_nn(self.problem.gram, change.coefficients)
        margins = self.problem.margins(displacements)
        violation = self.problem.worst_violation(margins)
        met = violation <= _BELIEVED * self.tolerance * self.result["unit"]
        return self.result | {
            "coefficients": change.coefficients,
            "multipliers": change.multipliers,
            "iterations": self.iterations,
            "displacements": displacements,
            "margins": margins,
            "violation": violation,
            "outcome": int(Status.CONVERGED if met else Status.STALLED),
        }


def _add_worst(margins: Floats, chosen: npt.NDArray[np.bool]) -> None:
    """Choose the pair of least margin of each prompt that violates one."""
    if margins.size > 0:
        worst = margins.argmin(axis=1)
        prompts = np.flatnonzero(margins.min(axis=1) < 0.0)
        chosen[prompts, worst[prompts]] = True


def _distance(a: _Change, b: _Change) -> float:
    """Between two changes, relative to the second."""
    size = float(np.linalg.norm(b.coefficients))
    distance = float(np.linalg.norm(a.coefficients - b.coefficients))
    return distance / (size if size > 0.0 else 1.0)
