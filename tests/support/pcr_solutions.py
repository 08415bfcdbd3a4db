# SPDX-License-Identifier: Apache-2.0
"""Solutions of reference problems, and what must hold for each."""

import numpy as np

from cintervene.solvers.pcr import pcr
from cintervene.solvers.preserve import Preserve


def solve(problem, **options):
    preserve = None
    if problem.benign is not None:
        preserve = Preserve(problem.benign, ridge_absolute=problem.ridge)
    options.setdefault("method", "most_violated")
    return pcr(
        problem.inputs,
        problem.outputs,
        problem.concepts,
        problem.radius,
        preserve=preserve,
        halfspaces=problem.halfspaces,
        **options,
    )


def assert_consistent(problem, solution):
    """Every field of a solution says the same as its update, on full matrices."""
    delta = solution.update.matrix()
    moved = problem.moved(delta)
    np.testing.assert_allclose(
        solution.displacements, moved - problem.outputs, atol=1e-9
    )
    distances = np.linalg.norm(moved[:, None] - problem.concepts, axis=2)
    np.testing.assert_allclose(solution.margins, distances - problem.pairs, atol=1e-9)
    if problem.halfspaces is not None:
        directions, offsets = problem.halfspaces
        expected = offsets - moved @ directions.T
        np.testing.assert_allclose(solution.halfspace_margins, expected, atol=1e-9)
    assert np.isclose(solution.cost, problem.squared_norm(delta), rtol=1e-8)
