# SPDX-License-Identifier: Apache-2.0
"""Thousands of small problems: known optima, proofs confirmed, feasible where naive."""

import numpy as np
import pytest
from support.degenerate_pcr import degenerate, naive_feasible
from support.generated_pcr import generated
from support.known_pcr import known

from cintervene.errors import ArgumentError
from cintervene.solvers.certify import certify
from cintervene.solvers.pcr import pcr
from cintervene.solvers.solution import Status

PROBLEM = ("inputs", "outputs", "concepts", "radius")


def certificate_of(solution, arguments):
    rest = {name: x for name, x in arguments.items() if name not in PROBLEM}
    return certify(solution, *(arguments[name] for name in PROBLEM), **rest)


def assert_honest(solution, arguments, name):
    """The figures are true, and the status says whether the constraints are met."""
    certificate = certificate_of(solution, arguments)
    assert solution.certified == certificate.certified, name
    met = certificate.feasibility <= 2e-9
    assert met or solution.status is not Status.CONVERGED, name
    if solution.status is Status.INFEASIBLE:
        assert solution.lower_bound == np.inf, name


def test_known_optima_are_found(cases, counted):
    number = cases(8000, 100_000)
    for k in range(number):
        kind, arguments, least = known(k)
        solution = pcr(**arguments)
        assert solution.status is Status.CONVERGED, (kind, k)
        assert solution.residuals["feasibility"] <= 1e-9, (kind, k)
        assert abs(solution.cost - least) <= 1e-7 * least, (kind, k)
        assert solution.lower_bound <= least * (1.0 + 1e-8), (kind, k)
        # On a line the nearest free place may be far beyond what the dual can prove.
        assert solution.certified or kind == "line", (kind, k)
    counted("PCR problems whose optimum is known exactly", number)
    assert number >= 8000


def test_certified_is_what_certify_says(cases, counted):
    number = cases(3000, 30_000)
    certified = 0
    for k in range(number):
        method = ("exact", "most_violated")[k % 4 == 3]
        make = (generated, degenerate, known)[k % 3]
        kind, arguments, *_ = make(k)
        solution = pcr(**arguments, method=method)
        assert_honest(solution, arguments, (kind, k, method))
        certified += solution.certified
    counted("PCR solutions judged again by certify", number)
    assert number >= 3000
    assert 0.4 * number < certified < 0.9 * number


def test_feasible_wherever_naive_starts_are(cases, counted):
    number = cases(300, 7000)
    found = 0
    for k in range(number):
        kind, arguments = degenerate(k)
        solution = pcr(**arguments)
        feasible = solution.status is Status.CONVERGED
        found += feasible
        assert feasible or naive_feasible(arguments) is None, (kind, k)
    counted("degenerate PCR problems beside twenty naive starts", number)
    assert found > 0.9 * number


def test_a_dual_that_creeps_along_its_boundary_is_given_up():
    solution = pcr([[1.0]], [[0.0]], [[0.3], [-0.3000001]], 1.0)
    assert solution.status is Status.CONVERGED
    assert np.isclose(solution.cost, 1.69, rtol=1e-12)
    assert solution.iterations < 500


@pytest.mark.parametrize("sizes", [(60, 60, 30), (60, 30, 60), (30, 60, 60)], ids=str)
@pytest.mark.parametrize("quantile", [0.02, 0.5, 0.9])
def test_few_iterations_where_dimensions_are_few(sizes, quantile):
    m, n, d_out = sizes
    rng = np.random.default_rng(0)
    inputs = np.sqrt(0.1) * rng.standard_normal((m, 30))
    inputs += np.sqrt(0.9) * rng.standard_normal(30)
    outputs = rng.standard_normal((m, d_out))
    concepts = 0.7 * rng.standard_normal((n, d_out))
    concepts += 0.8 * outputs[rng.integers(0, m, n)]
    distances = np.linalg.norm(outputs[:, None] - concepts, axis=2)
    radius = 1.1 * float(np.quantile(distances, quantile))
    solution = pcr(inputs, outputs, concepts, radius)
    assert solution.status is Status.CONVERGED
    assert solution.iterations <= 2000
    assert solution.gap < 0.2


def one_ball(scale_in, scale_out):
    """An output one radius short of leaving its ball."""
    outputs = scale_out * np.array([[1.0, 0.0]])
    return scale_in * np.array([[0.6, 0.8]]), outputs, np.zeros((1, 2)), 2.0 * scale_out


@pytest.mark.parametrize("method", ["exact", "most_violated"])
@pytest.mark.parametrize("scale", [1e-120, 1e-60, 1e60, 1e120])
def test_any_scale_whose_squares_are_numbers(method, scale):
    problem = one_ball(scale, scale)
    solution = pcr(*problem, method=method)
    assert solution.certified
    assert certify(solution, *problem).certified
    assert np.isclose(solution.cost, 1.0, rtol=1e-9)


@pytest.mark.parametrize("method", ["exact", "most_violated"])
@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e154, 1e160, 1e300])
@pytest.mark.parametrize("where", ["inputs", "outputs"])
def test_scales_whose_squares_are_no_numbers_are_refused(method, scale, where):
    scales = (scale, 1.0) if where == "inputs" else (1.0, scale)
    with pytest.raises(ArgumentError, match=r"1e-150 to 1e\+150|1e-300 or more"):
        pcr(*one_ball(*scales), method=method)


def test_other_arguments_of_impossible_scale_are_refused():
    inputs, outputs, concepts, radius = one_ball(1.0, 1.0)
    with pytest.raises(ArgumentError, match="radius: "):
        pcr(inputs, outputs, concepts, [1e-200])
    with pytest.raises(ArgumentError, match=r"halfspaces\[0\]\[1\]: "):
        pcr(inputs, outputs, None, 1.0, halfspaces=([[1, 0], [0, 1e-200]], 0.0))
    with pytest.raises(ArgumentError, match=r"halfspaces\[1\]: "):
        pcr(inputs, outputs, None, 1.0, halfspaces=([[1e-9, 0]], -1e149))
    with pytest.raises(ArgumentError, match="inputs: to move an output by 2e"):
        pcr(*one_ball(1e-100, 1e100))
    with pytest.raises(ArgumentError, match="tolerance: "):
        pcr(inputs, outputs, concepts, radius, tolerance=1.0)


def test_almost_dependent_inputs_are_feasible_as_the_update_says():
    rng = np.random.default_rng(3)
    inputs = rng.standard_normal((2, 8))
    inputs[1] = inputs[0] + 1e-3 * inputs[1]
    outputs, u = rng.standard_normal((2, 5)), np.ones(5)
    halfspaces = np.stack([u, -u]), np.array([[-1.0, np.inf], [np.inf, -1.0]])
    solution = pcr(inputs, outputs, None, 1.0, halfspaces=halfspaces)
    moved = outputs + inputs @ solution.update.matrix().T
    worst = max(moved[0].sum() + 1.0, 1.0 - moved[1].sum())
    assert solution.certified
    assert worst <= 1e-9 * np.abs(outputs.sum(axis=1)).max()
