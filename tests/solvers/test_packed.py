# SPDX-License-Identifier: Apache-2.0
"""Packed triangles against dense matrices; sizes on both sides of a block."""

import numpy as np
import pytest

from cintervene import _core
from cintervene.errors import ArgumentError
from cintervene.solvers import packed
from cintervene.solvers.preserve import BenignMoments, Preserve

SIZES = [1, 7, 255, 256, 257, 512, 700]


def unpacked(triangle, n):
    lower = np.zeros((n, n))
    for start, stop, rows in packed.block_rows(triangle, n):
        lower[start:stop, :stop] = rows
    return np.tril(lower)


@pytest.mark.parametrize("n", SIZES)
def test_sums_factors_and_solutions_equal_those_of_dense_matrices(n):
    rng = np.random.default_rng(n)
    x, b = rng.standard_normal((n + 20, n)), rng.standard_normal((70, n))
    triangle = _core.moment_add(x, packed.zeros(n))
    matrix = x.T @ x
    np.testing.assert_allclose(unpacked(triangle, n), np.tril(matrix), atol=1e-10)
    assert packed.trace(triangle, n) == pytest.approx(np.trace(matrix))
    product = packed.times_symmetric(b, triangle)
    np.testing.assert_allclose(product, b @ matrix, atol=1e-9)
    packed.add_to_diagonal(triangle, n, float(n))
    matrix += n * np.eye(n)
    _core.spd_factor(triangle)
    lower = np.linalg.cholesky(matrix)
    np.testing.assert_allclose(unpacked(triangle, n), lower, atol=1e-10)
    product = packed.times_lower(b, triangle)
    np.testing.assert_allclose(product, b @ lower, atol=1e-10)
    found = _core.spd_solve(triangle, b.copy())
    np.testing.assert_allclose(found, np.linalg.solve(matrix, b.T).T, rtol=1e-8)


@pytest.mark.parametrize("n", SIZES)
def test_columns_of_the_inverse_of_a_factor(n):
    x = np.random.default_rng(n).standard_normal((n + 20, n))
    triangle = packed.pack(np.linalg.cholesky(x.T @ x + np.eye(n)))
    inverse = np.linalg.inv(unpacked(triangle, n))
    for first in range(0, n, packed.BLOCK):
        columns = packed.inverse_columns(triangle, n, first)
        expected = inverse[first:, first : first + packed.BLOCK].T
        np.testing.assert_allclose(columns, expected, atol=1e-10)


@pytest.mark.parametrize("n", SIZES)
def test_a_packed_matrix_has_its_factor_to_the_bit(n):
    x = np.random.default_rng(n).standard_normal((n + 5, n))
    matrix = x.T @ x + np.eye(n)
    packed_factor = unpacked(_core.spd_factor(packed.pack(matrix)), n)
    np.testing.assert_array_equal(packed_factor, np.tril(_core.spd_factor(matrix)))


def test_what_is_no_triangle_is_refused():
    for wrong in (np.zeros(2), np.zeros(3, np.float32), np.zeros((1, 2))):
        with pytest.raises(ArgumentError, match="out: is no packed triangle"):
            _core.moment_add(np.ones((1, 1)), wrong)
    with pytest.raises(ArgumentError, match="a: is no packed triangle"):
        _core.spd_factor(np.zeros(3))
    with pytest.raises(ArgumentError, match="factor: is no packed triangle"):
        _core.spd_solve(np.ones(8)[::2], np.zeros((1, 2)))
    with pytest.raises(ArgumentError):
        _core.moment_add(np.ones((1, 2)), packed.zeros(3))


def test_moments_take_half_a_matrix_and_a_norm_of_a_factor_too():
    n = 2048
    rows = np.random.default_rng(0).standard_normal((n, n)).astype(np.float32)
    moments = BenignMoments(n).add(rows).add(rows[:9])
    held = moments._gathered.sum.nbytes
    assert held <= 0.6 * 8 * n**2
    assert moments.factored()._lower.nbytes == held


def test_a_given_matrix_has_its_norm_and_its_products():
    rng = np.random.default_rng(3)
    a, rows = rng.standard_normal((600, 600)), rng.standard_normal((4, 600))
    p = a @ a.T + np.eye(600)
    preserve = Preserve.from_matrix(p)
    np.testing.assert_allclose(preserve.gram(rows), rows @ p @ rows.T, rtol=1e-9)
    assert preserve.norm(rows) ** 2 == pytest.approx(np.trace(rows @ p @ rows.T))
