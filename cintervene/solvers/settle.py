# SPDX-License-Identifier: Apache-2.0
"""An update that falls short of its constraints by rounding alone, in better numbers.

In the form ``A' H P^-1`` inputs that are almost dependent have huge coefficients whose
effects nearly cancel, so that the last digit of a coefficient alone may be a violation
of 1e-9. Over orthonormal rows nothing cancels. There, what is missing is a small PCR
problem of its own, with the outputs where the update has moved them.
"""

from dataclasses import replace

import numpy as np

from cintervene import _core
from cintervene.solvers.problem import Problem
from cintervene.solvers.solution import Solution
from cintervene.solvers.update import LowRankUpdate
from cintervene.utils.arrays import Floats
from cintervene.utils.forks import undivided

__all__ = ["settle"]

# Each correction is as exact as the last one left it to do; more than two are rare.
_MAX_CORRECTIONS = 4


@undivided
def settle(
    solution: Solution, problem: Problem, h: Floats, accepted: float, tolerance: float
) -> Solution:
    """The solution over orthonormal rows, with what it falls short by added.

    Parameters
    ----------
    solution : Solution
        One that violates its constraints by little.
    problem : Problem
        What it solves.
    h : ndarray, shape (m, d_in)
        Inputs of the layer.
    accepted : float
        Violation, as a length, that needs no correction.
    tolerance : float
        As for `cintervene.pcr`.

    Returns
    -------
    Solution
        With the displacements and margins of its own update; cost, bound and
        residuals are those of `solution`, for `examine` to correct.
    """
    basis, triangle = np.linalg.qr(solution.update.right.T)
    rows = np.ascontiguousarray(basis.T)
    left = _core.product_nt(solution.update.left, triangle)
    onto = _core.product_nt(problem.dual_inputs, rows)
    seen = _core.product_nt(h, rows)
    own = (problem.gram - problem.true_gram).diagonal()[:, None]
    taken = solution.slack_displacements - solution.displacements
    moved = _core.product_nt(seen, left)
    for _ in range(_MAX_CORRECTIONS):
        if problem.worst_violation(problem.margins(moved + taken)) <= accepted:
            break
        added = _missing(problem, moved + taken, tolerance)
        left = left + _core.product_nn(np.ascontiguousarray(added.T), onto)
        taken = taken + own * added
        moved = _core.product_nt(seen, left)
    n = len(problem.concepts)
    margins, slack_margins = problem.margins(moved), problem.margins(moved + taken)
    return replace(
        solution,
        update=LowRankUpdate(left, rows),
        coefficients=None,
        displacements=moved,
        margins=margins[:, :n],
        halfspace_margins=margins[:, n:],
        slack_displacements=moved + taken,
        slack_margins=slack_margins[:, :n],
        slack_halfspace_margins=slack_margins[:, n:],
    )


def _missing(problem: Problem, moved: Floats, tolerance: float) -> Floats:
    """Coefficients of the least change that meets the constraints from here."""
    rest = replace(problem, outputs=problem.outputs + moved)
    return _core.pcr_exact(*rest.arrays, tolerance, 1000, 0)["coefficients"]
