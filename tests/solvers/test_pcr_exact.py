# SPDX-License-Identifier: Apache-2.0
"""The exact solver: optimality proved, against independent optima and by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.generated_pcr import KINDS, generated
from support.pcr_solutions import assert_consistent, solve
from support.reference_pcr import (
    CASES,
    Problem,
    almost_on_a_concept,
    random_halfspaces,
    random_problem,
    reference_case,
)

from cintervene.solvers.pcr import pcr
from cintervene.solvers.solution import Status
from cintervene.utils.runtime import thread_limit


def exact(problem, **options):
    return solve(problem, method="exact", **options)


def assert_proved(solution):
    assert solution.status is Status.CONVERGED
    assert solution.certified
    for name, residual in solution.residuals.items():
        assert residual <= 1e-9, name


def dual_bound(problem, multipliers):
    """The lower bound of a proof, with explicit inverses and vectors."""
    m_matrix = np.linalg.inv(problem.gram)
    n = len(problem.concepts)
    differences = problem.outputs[:, None] - problem.concepts
    square = np.sum(differences**2, axis=2)
    balls, halves = multipliers[:, :n], multipliers[:, n:]
    linear = np.sum(balls * (problem.pairs**2 - square))
    pull = np.einsum("ji,jid->jd", balls, differences)
    if problem.halfspaces is not None:
        directions, offsets = problem.halfspaces
        on = np.isfinite(offsets)
        level = problem.outputs @ directions.T - np.where(on, offsets, 0.0)
        linear += np.sum(2 * halves * level)
        pull -= halves @ directions
    system = m_matrix - np.diag(balls.sum(axis=1))
    assert np.linalg.eigvalsh(system).min() > -1e-9 * np.abs(m_matrix).max()
    return linear - np.trace(pull.T @ np.linalg.solve(system, pull))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["shape"][-1])
def test_reaches_the_stored_optimum(case):
    problem = reference_case(case)
    solution = exact(problem)
    assert_proved(solution)
    assert_consistent(problem, solution)
    assert np.isclose(solution.cost, case["optimal_cost"], rtol=1e-8)


@pytest.mark.parametrize("number", range(8 * len(KINDS)))
def test_generated_problems_are_proved(number):
    _, arguments = generated(number)
    assert_proved(pcr(**arguments))


@pytest.mark.parametrize("k", [0, 3])
def test_multipliers_prove_the_bound_by_dense_algebra(k):
    problem = random_problem(21, m=4, n=6, d_out=24)
    if k > 0:
        problem.halfspaces = random_halfspaces(21, problem, k)
    solution = exact(problem)
    assert np.all(solution.multipliers >= 0.0)
    assert np.isclose(dual_bound(problem, solution.multipliers), solution.cost)
    assert np.isclose(solution.lower_bound, solution.cost, rtol=1e-9)


def test_never_costs_more_than_the_most_violated_rule():
    for seed in range(5):
        problem = random_problem(seed, m=5, n=8, d_out=30, correlation=0.9)
        assert exact(problem).cost <= solve(problem).cost * (1 + 1e-9)


def test_half_spaces_alone_equal_a_quadratic_program():
    optimize = pytest.importorskip("scipy.optimize")
    problem = random_problem(22, m=5, n=0, d_out=7)
    problem.halfspaces = random_halfspaces(22, problem, 4, strength=3.0)
    directions, offsets = problem.halfspaces
    solution = exact(problem)
    assert_proved(solution)
    prompts, which = np.nonzero(np.isfinite(offsets))
    u = directions[which]
    hessian = problem.gram[np.ix_(prompts, prompts)] * (u @ u.T)
    need = np.sum(u * problem.outputs[prompts], axis=1) - offsets[prompts, which]
    root = np.linalg.cholesky(hessian + 1e-14 * np.eye(len(need)))
    multipliers, _ = optimize.nnls(root.T, np.linalg.solve(root, need))
    assert np.isclose(solution.cost, multipliers @ hessian @ multipliers, rtol=1e-7)


def test_many_positions_tied_to_one_direction_each():
    problem = random_problem(23, m=150, n=0, d_out=40, d_in=60, correlation=0.7)
    problem.halfspaces = random_halfspaces(23, problem, 30, strength=2.0)
    assert_proved(exact(problem, slack=5.0))


@pytest.mark.parametrize("m", [1, 3, 4, 5])
@pytest.mark.parametrize("far", [0.0, 1.0, 100.0])
@pytest.mark.parametrize("repeated", [False, True])
def test_few_prompts_and_many_violated_concepts(m, far, repeated):
    problem = random_problem(31 + m, m, n=70, d_out=300, quantile=0.9)
    problem.outputs[:] += far
    problem.concepts[:] += far
    if repeated:
        problem.concepts[35:] = problem.concepts[:35] + 1e-7
        problem.concepts[-1] = problem.outputs[0]
    solution = exact(problem)
    assert_proved(solution)
    assert repeated or np.count_nonzero(solution.multipliers) > 5
    rule = solve(problem, method="most_violated")
    assert solution.cost <= rule.cost * (1 + 1e-9)


def test_output_on_a_concept_needs_a_direction_outside_the_span():
    inputs, outputs = np.array([[2.0, 0.0]]), np.array([[1.0, 1.0, 1.0]])
    solution = pcr(inputs, outputs, outputs, 3.0)
    assert_proved(solution)
    assert np.isclose(solution.cost, 9.0 / 4.0, rtol=1e-10)
    assert np.isclose(np.linalg.norm(solution.displacements), 3.0, rtol=1e-9)


@pytest.mark.parametrize("distance", [1e-14, 1e-12, 1e-10, 1e-9, 1e-8, 1e-7, 1e-6])
@pytest.mark.parametrize("seed", [1, 3, 4, 6])
def test_output_almost_on_a_concept(seed, distance):
    solution = exact(almost_on_a_concept(seed, 3, 4, distance))
    assert solution.certified
    assert solution.residuals["feasibility"] <= 1e-9
    assert solution.residuals["complementarity"] <= 1e-9
    # The cost hardly depends on the direction taken, which is known to fewer digits.
    assert solution.residuals["stationarity"] <= 1e-5


# With these the dual's maximum lies beyond the domain of the next proximal step. Where
# Newton's method began deep inside it, there was no way back to the boundary.
@pytest.mark.parametrize("distance", [3e-9, 1e-8, 1e-7, 1e-6])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (8, 4)], ids=str)
def test_dual_whose_maximum_is_at_the_boundary_is_proved(distance, size):
    for seed in (1, 2, 5, 12, 15, 18, 19, 20, 22, 28, 31, 35, 36, 38):
        solution = exact(almost_on_a_concept(seed, *size, distance))
        assert solution.certified, seed
        assert solution.residuals["feasibility"] <= 1e-9
        assert solution.residuals["complementarity"] <= 1e-9
        assert solution.residuals["stationarity"] <= 1e-5


@given(
    seed=st.integers(0, 2**31),
    exponent=st.floats(-14.0, -6.0),
    m=st.integers(1, 4),
    n=st.integers(1, 5),
)
@settings(max_examples=40)
def test_no_false_proof_almost_on_a_concept(seed, exponent, m, n):
    problem = almost_on_a_concept(seed, m, n, 10.0**exponent)
    solution = exact(problem)
    rule = solve(problem, method="most_violated")
    assert solution.residuals["feasibility"] <= 1e-9
    assert solution.certified == (solution.gap <= 1e-8)
    assert solution.lower_bound <= rule.cost * (1 + 1e-9)
    assert solution.cost <= rule.cost * (1 + 1e-8)


def test_between_two_concepts_the_way_out_is_sideways():
    outputs = np.zeros((1, 3))
    concepts = np.array([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]])
    solution = pcr(np.ones((1, 1)), outputs, concepts, 2.0)
    assert_proved(solution)
    assert np.isclose(solution.cost, 3.0, rtol=1e-10)


def test_inactive_constraints_have_no_multiplier():
    problem = random_problem(24, m=6, n=10, d_out=40)
    solution = exact(problem)
    active = solution.multipliers > 0.0
    np.testing.assert_allclose(solution.margins[active], 0.0, atol=1e-9)
    assert active.sum() < active.size


def test_nothing_violated_is_proved_with_a_zero_update():
    problem = random_problem(25)
    problem.radius = 1e-3
    solution = exact(problem)
    assert_proved(solution)
    assert solution.update.rank == 0
    assert solution.lower_bound == 0.0


def test_contradicting_half_spaces_are_named():
    problem = random_problem(26, m=3, n=2, d_out=12)
    u = np.arange(1.0, 13.0)
    directions = np.stack([np.ones(12), u, -u])
    offsets = np.full((3, 3), np.inf)
    offsets[:, 0] = 5.0
    offsets[1, 1], offsets[1, 2] = -1.0, -1.0
    problem.halfspaces = directions, offsets
    solution = exact(problem)
    assert solution.status is Status.INFEASIBLE
    assert solution.clashes == [(1, 3), (1, 4)]
    assert solution.update.rank == 0
    assert not solution.certified
    assert solution.lower_bound == np.inf


def test_equal_inputs_with_different_demands_clash():
    problem = random_problem(27, m=3, n=0, d_out=5)
    problem.inputs[2] = problem.inputs[0]
    problem.outputs[2] = problem.outputs[0]
    u = np.ones(5)
    offsets = np.array([[-1.0, np.inf], [0.0, 0.0], [np.inf, -1.0]])
    problem.halfspaces = np.stack([u, -u]), offsets
    solution = exact(problem)
    assert solution.status is Status.INFEASIBLE
    assert solution.clashes == [(0, 0), (2, 1)]


@pytest.mark.parametrize(("slack", "active"), [(1.0, 100), (1e-6, 40)])
def test_many_active_halfspaces(slack, active):
    rng = np.random.default_rng(29)
    inputs = 0.3 * rng.standard_normal((200, 60)) + rng.standard_normal(60)
    outputs, directions = rng.standard_normal((200, 30)), rng.standard_normal((20, 30))
    offsets = outputs @ directions.T - rng.uniform(0.5, 2.0, (200, 20))
    offsets[rng.random(offsets.shape) < 0.9] = np.inf
    halfspaces = directions, offsets
    solution = pcr(inputs, outputs, None, 0.0, slack=slack, halfspaces=halfspaces)
    assert np.count_nonzero(solution.multipliers) > active
    assert solution.certified
    assert solution.iterations < 100
    assert max(solution.residuals.values()) < 1e-9


def test_hard_but_feasible_demands_are_not_called_infeasible(kernels):
    problem = random_problem(28, m=2, n=0, d_out=5, d_in=8)
    problem.inputs[1] = problem.inputs[0] + 1e-3 * problem.inputs[1]
    u = np.ones(5)
    offsets = np.array([[-1.0, np.inf], [np.inf, -1.0]])
    problem.halfspaces = np.stack([u, -u]), offsets
    assert exact(problem).certified


@pytest.mark.parametrize("seed", range(12))
def test_without_free_dimensions_it_is_feasible_and_honest(seed):
    rng = np.random.default_rng(seed)
    inputs = rng.standard_normal((3, 5))
    outputs, concepts = rng.standard_normal((3, 1)), rng.standard_normal((4, 1))
    solution = pcr(inputs, outputs, concepts, 1.0)
    rule = pcr(inputs, outputs, concepts, 1.0, method="most_violated")
    assert solution.status is Status.CONVERGED
    assert solution.residuals["feasibility"] <= 1e-9
    if rule.status is Status.CONVERGED:
        assert solution.lower_bound <= rule.cost * (1 + 1e-9)
    assert solution.certified == (abs(solution.gap) <= 1e-8)


@given(
    seed=st.integers(0, 2**31),
    m=st.integers(0, 5),
    n=st.integers(0, 7),
    d_out=st.integers(1, 30),
    k=st.integers(0, 3),
    correlation=st.sampled_from([0.0, 0.9, 0.9999]),
)
@settings(max_examples=60)
def test_any_shape(seed, m, n, d_out, k, correlation):
    problem = random_problem(seed, m, n, d_out, d_in=m + 3, correlation=correlation)
    if k > 0 and m > 0:
        problem.halfspaces = random_halfspaces(seed, problem, k)
    solution = exact(problem)
    if d_out > 2 * m + n + k:
        assert_proved(solution)
    if solution.status is Status.CONVERGED:
        assert solution.residuals["feasibility"] <= 1e-9
        assert solution.lower_bound <= solution.cost * (1 + 1e-8)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_units_do_not_matter(scale):
    problem = random_problem(29, m=4, n=6, d_out=24)
    base = exact(problem)
    scaled = Problem(
        problem.inputs / scale,
        problem.outputs * scale,
        problem.concepts * scale,
        problem.radius * scale,
    )
    solution = exact(scaled)
    assert_proved(solution)
    assert np.isclose(solution.cost, base.cost * scale**4, rtol=1e-9)


def test_history_tells_the_course():
    solution = exact(random_problem(30, m=4, n=6, d_out=24))
    assert set(solution.history) == {"violation", "cost", "lower_bound"}
    assert solution.history["violation"][-1] < 1e-9
    assert np.isclose(solution.history["cost"][-1], solution.cost)


def test_same_bits_for_any_number_of_threads():
    problem = random_problem(31, m=30, n=140, d_out=300, d_in=700)
    results = []
    for threads in (1, 2, 3, 8):
        with thread_limit(threads):
            results.append(exact(problem))
    for other in results[1:]:
        np.testing.assert_array_equal(other.update.left, results[0].update.left)
        assert other.lower_bound == results[0].lower_bound
