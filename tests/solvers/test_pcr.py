# SPDX-License-Identifier: Apache-2.0
"""The closed form and the most-violated rule against full matrices in NumPy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.interrupts import interrupt_after
from support.pcr_solutions import assert_consistent, solve
from support.reference_pcr import (
    CASES,
    Problem,
    most_violated,
    random_halfspaces,
    random_problem,
    reference_case,
)

from cintervene import _core
from cintervene.errors import ArgumentError, NonFiniteError
from cintervene.solvers.pcr import pcr
from cintervene.solvers.solution import Status
from cintervene.utils.runtime import thread_limit


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["shape"][-1])
def test_most_violated_reproduces_the_stored_cases(case):
    problem = reference_case(case)
    solution = solve(problem)
    assert solution.status is Status.CONVERGED
    assert solution.iterations == case["most_violated_steps"]
    assert np.isclose(solution.cost, case["most_violated_cost"], rtol=1e-9)
    assert_consistent(problem, solution)


@pytest.mark.parametrize("radius", [2.0, 7.5])
def test_one_constraint_is_the_closed_form(radius):
    h, o, c = np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]]), np.zeros((1, 2))
    solution = pcr(h, o, c, radius, method="most_violated")
    push = max(radius - 5.0, 0.0) * np.array([0.6, 0.8])
    np.testing.assert_allclose(
        solution.update.matrix(), np.outer(push, h[0]) / 5.0, atol=1e-14
    )
    assert solution.update.rank == (radius > 5.0)
    a, d = push / 5.0, push
    multiplier = solution.multipliers[0, 0]
    np.testing.assert_allclose(a, multiplier * (o[0] + d), atol=1e-14)


def test_more_pairs_than_one_pass_takes_are_violated_equally():
    radius = np.ones((2, 20))
    radius[0, :19] = radius[1, 19] = 0.0
    outputs, concepts = np.array([[0.0, 2.0]] * 2), np.array([[0.0, 1.5]] * 20)
    solution = pcr(np.eye(2), outputs, concepts, radius, method="most_violated")
    assert solution.iterations == 2
    expected = [[0.0, 0.0], [0.5, 0.5]]
    assert np.allclose(solution.update.matrix(), expected, atol=1e-12)


def test_output_on_its_concept_leaves_along_a_fixed_direction():
    h, o = np.array([[2.0, 0.0]]), np.array([[1.0, 1.0, 1.0]])
    solution = pcr(h, o, o, 3.0, method="most_violated")
    np.testing.assert_allclose(solution.displacements, [[3.0, 0.0, 0.0]])
    np.testing.assert_allclose(solution.multipliers, [[0.25]])


def test_nothing_violated_changes_nothing():
    problem = random_problem(3)
    problem.radius = 1e-3
    solution = solve(problem)
    assert solution.update.rank == 0
    assert solution.cost == 0.0
    assert solution.iterations == 0
    assert solution.status is Status.CONVERGED
    np.testing.assert_array_equal(solution.multipliers, 0.0)


@given(
    seed=st.integers(0, 2**31),
    m=st.integers(0, 6),
    n=st.integers(0, 8),
    d_out=st.integers(4, 12),
    k=st.integers(0, 4),
    correlation=st.sampled_from([0.0, 0.9]),
)
@settings(max_examples=60)
def test_most_violated_equals_full_matrices(seed, m, n, d_out, k, correlation):
    problem = random_problem(seed, m, n, d_out, d_in=m + 3, correlation=correlation)
    if k > 0:
        problem.halfspaces = random_halfspaces(seed, problem, k)
    if n + k == 0 or m == 0:
        assert solve(problem).update.rank == 0
        return
    limit = 40
    delta, steps = most_violated(problem, limit=limit)
    solution = solve(problem, max_iterations=limit)
    assert solution.iterations == steps
    scale = 1.0 + np.abs(delta).max()
    np.testing.assert_allclose(solution.update.matrix(), delta, atol=1e-8 * scale)
    assert solution.status is Status.CONVERGED or steps == limit


def test_radius_broadcasts_and_zero_switches_off():
    problem = random_problem(5)
    full = solve(problem)
    per_concept = np.full(6, problem.radius)
    for radius in (per_concept, np.tile(per_concept, (4, 1))):
        problem.radius = radius
        np.testing.assert_array_equal(solve(problem).displacements, full.displacements)
    problem.radius = np.tile(per_concept, (4, 1))
    problem.radius[2] = 0.0
    partial = solve(problem)
    assert partial.cost < full.cost
    assert np.all(partial.margins[[0, 1, 3]] >= -1e-9)


def test_far_concept_acts_as_its_half_space():
    problem = random_problem(8, m=3, n=0)
    directions, offsets = random_halfspaces(8, problem, 2)
    directions /= np.linalg.norm(directions, axis=1)[:, None]
    problem.halfspaces = directions, offsets
    flat = solve(problem)
    far = 1e6
    radius = np.where(np.isfinite(offsets), far - offsets, 0.0)
    ball = Problem(problem.inputs, problem.outputs, directions * far, radius)
    curved = solve(ball, tolerance=1e-13)
    np.testing.assert_allclose(curved.displacements, flat.displacements, atol=1e-4)


def test_slack_shares_the_displacement():
    problem = random_problem(9, correlation=0.9)
    hard, soft = solve(problem), solve(problem, slack=3.0)
    assert soft.cost < hard.cost
    assert soft.slack_margins.min() >= -1e-9
    assert soft.margins.min() < -1e-3
    delta = soft.update.matrix()
    moved = problem.moved(delta)
    np.testing.assert_allclose(soft.displacements, moved - problem.outputs, atol=1e-9)
    price = np.trace(problem.gram) / len(problem.gram) * 3.0
    taken = soft.slack_displacements - soft.displacements
    expected = problem.squared_norm(delta) + np.sum(taken**2) / price
    assert np.isclose(soft.cost, expected, rtol=1e-9)


def test_iteration_limit_is_a_status_and_history_tells_the_steps():
    problem = random_problem(10, m=5, n=8)
    solution = solve(problem, max_iterations=2)
    assert solution.status is Status.ITERATION_LIMIT
    assert solution.residuals["feasibility"] > 1e-6
    assert solution.multipliers is None
    assert set(solution.history) == {"violation", "prompt", "constraint"}
    first = problem.radius - np.linalg.norm(
        problem.outputs[:, None] - problem.concepts, axis=2
    )
    assert np.isclose(solution.history["violation"][0], first.max())
    j, i = np.unravel_index(first.argmax(), first.shape)
    assert (solution.history["prompt"][0], solution.history["constraint"][0]) == (j, i)


def test_same_bits_for_any_number_of_threads():
    problem = random_problem(11, m=40, n=150, d_out=300, d_in=700)
    results = []
    for threads in (1, 2, 3, 8):
        with thread_limit(threads):
            results.append(solve(problem))
    for other in results[1:]:
        np.testing.assert_array_equal(other.update.left, results[0].update.left)
        np.testing.assert_array_equal(other.margins, results[0].margins)


def test_bfloat16_tensors_are_widened_exactly():
    torch = pytest.importorskip("torch")
    problem = random_problem(12)
    arrays = [problem.inputs, problem.outputs, problem.concepts]
    tensors = [torch.tensor(x).to(torch.bfloat16) for x in arrays]
    wide = [x.to(torch.float64).numpy() for x in tensors]
    left = pcr(*tensors, problem.radius, method="most_violated")
    right = pcr(*wide, problem.radius, method="most_violated")
    np.testing.assert_array_equal(left.displacements, right.displacements)


def test_many_positions_with_one_half_space_each():
    problem = random_problem(13, m=60, n=0, d_out=30, d_in=40, correlation=0.5)
    problem.halfspaces = random_halfspaces(13, problem, 10, strength=2.0)
    solution = solve(problem, slack=5.0)
    assert solution.status is Status.CONVERGED
    assert solution.slack_halfspace_margins.min() >= -1e-8


def test_status_numbers_are_those_of_the_core():
    assert {s.name: int(s) for s in Status} == {
        name: number for name, (number, _) in _core.outcomes().items()
    }


BAD = [
    ({"inputs": np.zeros((3, 12))}, "inputs: row 0 is zero"),
    ({"inputs": np.zeros(12)}, "inputs: got shape"),
    ({"outputs": np.zeros((3, 20))}, "outputs: has 3 rows; expected 4"),
    ({"concepts": np.zeros((6, 19))}, "concepts: has 19 columns; expected 20"),
    ({"radius": -1.0}, "radius: has a negative"),
    ({"radius": np.ones(5)}, "radius: got shape"),
    ({"radius": np.nan}, "radius: has a negative or non-finite"),
    ({"slack": -1.0}, "slack: got -1.0"),
    ({"method": "best"}, "method: got 'best'; expected one of .*most_violated"),
    ({"tolerance": 0.0}, "tolerance: got 0.0"),
    ({"max_iterations": -1}, "max_iterations: got -1"),
    ({"max_iterations": 1 << 63}, "max_iterations: got 9.*less than 2"),
    ({"halfspaces": (np.zeros((1, 20)), 0.0)}, "row 0 is zero"),
    ({"halfspaces": (np.ones((1, 19)), 0.0)}, "has 19 columns"),
    ({"halfspaces": (np.ones((1, 20)), -np.inf)}, "NaN or -inf"),
    ({"halfspaces": (np.ones((2, 20)), np.zeros(3))}, "got shape"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_errors_name_the_argument(change, message):
    problem = random_problem(1)
    arguments = {
        "inputs": problem.inputs,
        "outputs": problem.outputs,
        "concepts": problem.concepts,
        "radius": problem.radius,
    }
    inputs = change.get("inputs")
    if inputs is not None and inputs.ndim == 2:
        arguments["outputs"] = problem.outputs[: len(inputs)]
    with pytest.raises(ArgumentError, match=message):
        pcr(**(arguments | change))


@pytest.mark.parametrize("name", ["inputs", "outputs", "concepts"])
def test_non_finite_inputs_are_named(name):
    problem = random_problem(2)
    getattr(problem, name)[1, 2] = np.nan
    with pytest.raises(NonFiniteError, match=f"{name}: not finite at row 1, column 2"):
        solve(problem)


def test_signals_interrupt_a_long_solve():
    u = np.ones(4)
    contradiction = np.stack([u, -u]), np.array([-1.0, -1.0])

    with pytest.raises(KeyboardInterrupt), interrupt_after(0.1):
        pcr(
            np.ones((1, 1)),
            np.zeros((1, 4)),
            None,
            0.0,
            halfspaces=contradiction,
            method="most_violated",
            max_iterations=10**12,
        )
