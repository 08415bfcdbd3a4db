# SPDX-License-Identifier: Apache-2.0
"""Inputs that are almost dependent: met to the last digits by any kernels."""

from dataclasses import replace

import numpy as np
import pytest
from support.reference_pcr import random_problem

from cintervene.solvers.certify import certify
from cintervene.solvers.pcr import pcr
from cintervene.solvers.preserve import Preserve
from cintervene.solvers.problem import MeasuredInputs, prepare
from cintervene.solvers.settle import settle
from cintervene.solvers.solution import Status

KINDS = ("half-spaces", "balls", "slack", "preserve")


def almost_dependent(seed, kind, near):
    """Two pairs of inputs that hardly differ, each pair torn apart."""
    problem = random_problem(seed, m=4, n=3, d_out=12, d_in=9)
    inputs = problem.inputs
    inputs[[1, 3]] = inputs[[0, 2]] + near * inputs[[1, 3]]
    rng = np.random.default_rng(seed)
    if kind == "balls":
        return (inputs, problem.outputs, problem.concepts, problem.radius), {}
    u = rng.standard_normal(12)
    offsets = np.array([[-1.0, np.inf], [np.inf, -1.0]] * 2)
    options = {"halfspaces": (np.stack([u, -u]), offsets)}
    if kind == "slack":
        options["slack"] = 1e-7
    if kind == "preserve":
        options["preserve"] = Preserve(rng.standard_normal((40, 9)), ridge=0.1)
    return (inputs, problem.outputs, None, 0.0), options


@pytest.mark.parametrize(("near", "gap"), [(2e-3, 1e-8), (3e-4, 1e-6)])
@pytest.mark.parametrize("kind", KINDS)
def test_almost_dependent_inputs_are_met_with_any_kernels(kernels, kind, near, gap):
    """The bound loses digits with the square of `near`, which the gap has to allow."""
    for seed in range(20):
        arguments, options = almost_dependent(seed, kind, near)
        solution = pcr(*arguments, **options)
        certificate = certify(solution, *arguments, **options)
        assert solution.status is Status.CONVERGED, seed
        assert certificate.feasibility <= 1e-9, seed
        assert abs(certificate.gap) <= gap, seed


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_returned_belongs_to_the_update(kernels, kind):
    for seed in range(5):
        arguments, options = almost_dependent(seed, kind, near=1e-4)
        solution = pcr(*arguments, **options)
        certificate = certify(solution, *arguments, **options)
        assert solution.certified == certificate.certified
        assert np.isclose(solution.cost, certificate.cost, rtol=1e-12)
        claimed = solution.residuals["feasibility"]
        assert np.isclose(claimed, certificate.feasibility, atol=1e-11)
        moved = arguments[0] @ solution.update.matrix().T
        np.testing.assert_allclose(solution.displacements, moved, atol=1e-6)


def test_a_violation_is_mended_over_orthonormal_rows(kernels):
    arguments, options = almost_dependent(1, "half-spaces", near=1e-4)
    whole = pcr(*arguments, **options)
    short = replace(whole, update=whole.update * (1.0 - 1e-7))
    measured = MeasuredInputs.of(arguments[0])
    problem = prepare(measured, *arguments[1:], 0.0, options["halfspaces"])
    settled = settle(short, problem, arguments[0], 1e-12, 1e-10)
    rows = settled.update.right
    assert settled.coefficients is None
    np.testing.assert_allclose(rows @ rows.T, np.eye(len(rows)), atol=1e-12)
    assert certify(short, *arguments, **options).feasibility > 1e-8
    assert certify(settled, *arguments, **options).feasibility <= 1e-11
    assert np.isclose(settled.update.norm, whole.update.norm, rtol=1e-6)
