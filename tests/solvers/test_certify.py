# SPDX-License-Identifier: Apache-2.0
"""A claimed solution is believed for what it proves, and for nothing else."""

from dataclasses import replace

import numpy as np
import pytest
from support.generated_pcr import KINDS, generated
from support.pcr_solutions import solve
from support.reference_pcr import random_halfspaces, random_problem

from cintervene.errors import ArgumentError
from cintervene.solvers.certify import certify
from cintervene.solvers.pcr import pcr
from cintervene.solvers.solution import Status
from cintervene.solvers.update import LowRankUpdate


def check(solution, problem, **options):
    return certify(
        solution,
        problem.inputs,
        problem.outputs,
        problem.concepts,
        problem.radius,
        halfspaces=problem.halfspaces,
        **options,
    )


@pytest.fixture
def problem():
    problem = random_problem(40, m=4, n=6, d_out=24)
    problem.halfspaces = random_halfspaces(40, problem, 2)
    return problem


@pytest.mark.parametrize("number", range(3 * len(KINDS)))
def test_exact_solutions_are_certified(number):
    _, arguments = generated(number)
    solution = pcr(**arguments)
    found = certify(solution, **arguments)
    assert found.certified
    assert found.stationarity <= 1e-7
    assert found.complementarity <= 1e-8
    assert np.isclose(found.cost, solution.cost, rtol=1e-9)
    assert np.isclose(found.lower_bound, solution.lower_bound, rtol=1e-9)


def test_a_dearer_change_is_not(problem):
    solution = solve(problem, method="exact")
    dearer = replace(solution, update=1.1 * solution.update)
    found = check(dearer, problem)
    assert not found.certified
    assert np.isclose(found.gap, 1 - 1 / 1.21, rtol=1e-6)
    assert found.stationarity > 1e-3


def test_a_violating_change_is_not(problem):
    solution = solve(problem, method="exact")
    short = replace(solution, update=0.99 * solution.update)
    found = check(short, problem)
    assert not found.certified
    assert found.feasibility > 1e-4


def test_wrong_multipliers_prove_less_but_never_too_much(problem):
    solution = solve(problem, method="exact")
    rng = np.random.default_rng(0)
    for scale in (0.0, 0.3, 1.7, 100.0):
        wrong = solution.multipliers * scale * rng.random(solution.multipliers.shape)
        found = check(replace(solution, multipliers=wrong), problem)
        assert not found.certified
        assert 0.0 <= found.lower_bound < solution.cost


def test_a_negative_multiplier_proves_nothing(problem):
    solution = solve(problem, method="exact")
    multipliers = solution.multipliers.copy()
    multipliers[0, 0] = -1.0
    found = check(replace(solution, multipliers=multipliers), problem)
    assert found.lower_bound == 0.0
    assert np.isnan(found.stationarity)


def test_the_most_violated_rule_is_feasible_without_a_proof(problem):
    solution = solve(problem, method="most_violated")
    assert solution.multipliers is None
    found = check(solution, problem)
    assert found.feasibility <= 1e-9
    assert not found.certified


def test_no_change_at_all():
    problem = random_problem(41)
    problem.radius = 1e-3
    found = check(solve(problem, method="exact"), problem)
    assert found.certified
    assert found.cost == found.lower_bound == 0.0


def test_an_infeasible_claim_is_not_certified():
    problem = random_problem(42, m=2, n=0, d_out=4)
    u = np.ones(4)
    problem.halfspaces = np.stack([u, -u]), np.array([-1.0, -1.0])
    solution = solve(problem, method="exact")
    assert solution.status is Status.INFEASIBLE
    assert not check(solution, problem).certified


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_rounding_is_judged_in_the_stored_type(problem, dtype):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    weight = torch.tensor(rng.standard_normal((24, 12))).to(getattr(torch, dtype))
    before = weight.clone()
    solution = solve(problem, method="exact")
    found = check(solution, problem, weight=weight)
    assert torch.equal(weight, before)
    changed = solution.update.apply(weight.clone())
    delta = (changed.double() - weight.double()).numpy()
    moved = problem.moved(delta)
    distance = np.linalg.norm(moved[:, None] - problem.concepts, axis=2)
    directions, offsets = problem.halfspaces
    lengths = np.linalg.norm(directions, axis=1)
    worst = max(
        np.max(problem.radius - distance),
        np.max((moved @ directions.T - offsets) / lengths),
    )
    expected = max(worst, 0.0) / problem.radius
    assert np.isclose(found.stored_feasibility, expected, rtol=1e-6, atol=1e-12)


def test_another_problem_is_refused(problem):
    solution = solve(problem, method="exact")
    with pytest.raises(ArgumentError, match="its multipliers have shape"):
        certify(solution, problem.inputs, problem.outputs, problem.concepts, 1.0)
    for claim in (None, solution.update):
        with pytest.raises(ArgumentError, match=r"solution: got (NoneT|LowR)"):
            check(claim, problem)
    other = replace(solution, update=LowRankUpdate.zero(3, 12))
    with pytest.raises(ArgumentError, match="its update has shape"):
        check(other, problem)
