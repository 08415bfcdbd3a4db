# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import reference
from support.containers import BFLOAT16, DTYPES, NUMPY_LAYOUTS, from_torch, to_torch

import cintervene as ci


def make(d_out, d_in, rank, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    left = rng.normal(size=(d_out, rank)).astype(dtype)
    right = rng.normal(size=(rank, d_in)).astype(dtype)
    weights = rng.normal(size=(d_out, d_in))
    return ci.LowRankUpdate(left, right), weights


SHAPES = [(1, 1, 1), (5, 7, 3), (65, 130, 8), (97, 300, 33), (8, 64, 0), (200, 33, 100)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_apply_rounds_once(kernels, dtype, shape):
    update, weights = make(*shape)
    weights = weights.astype(dtype)
    exact = weights.astype(np.float64) + update.matrix()
    out = update.apply(weights, out=np.empty_like(weights))
    got = out.astype(np.float64)
    rounded = reference.round_to(exact, dtype)
    compute = np.finfo(np.float64 if dtype == np.float64 else np.float32)
    terms = np.abs(weights.astype(np.float64)) + np.abs(update.left) @ np.abs(
        update.right
    )
    slack = (shape[2] + 1) ** 0.5 * compute.eps * terms
    # Either correctly rounded, or the exact value is within `slack` of a tie.
    neighbours = [reference.round_to(exact + s * slack, dtype) for s in (-1, 1)]
    assert ((got >= neighbours[0]) & (got <= neighbours[1])).all()
    assert (got == rounded).mean() > (0.1 if dtype.itemsize > 2 else 0.98)
    assert update.apply(weights) is weights
    np.testing.assert_array_equal(weights, out)


@pytest.mark.parametrize("dtype", [np.dtype("float16"), BFLOAT16], ids=str)
def test_ties_round_to_even(kernels, dtype):
    """Sums that are exact in float32 must round exactly as NumPy rounds them."""
    rng = np.random.default_rng(1)
    weights = rng.integers(-64, 64, size=(64, 64)).astype(np.float64)
    left = rng.integers(-8, 8, size=(64, 2)) / 64.0
    right = rng.integers(-8, 8, size=(2, 64)) / 64.0
    update = ci.LowRankUpdate(left, right)
    expected = (weights + left @ right).astype(np.float32).astype(dtype)
    np.testing.assert_array_equal(update.apply(weights.astype(dtype)), expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_stored_value_survives_a_zero_change(kernels, dtype):
    """Loading and rounding are exact inverses, subnormals and all."""
    if dtype.itemsize == 2:
        bits = np.arange(2**16, dtype=np.uint16).view(dtype).reshape(256, 256)
    else:
        bits = np.random.default_rng(2).normal(size=(256, 256)).astype(dtype)
    with np.errstate(invalid="ignore"):
        finite = np.isfinite(bits.astype(np.float64))
    weights = np.where(finite, bits, dtype.type(0))
    update = ci.LowRankUpdate(np.zeros((256, 1)), np.ones((1, 256)))
    np.testing.assert_array_equal(update.apply(weights.copy()), weights)


@pytest.mark.parametrize("dtype", [np.dtype("float16"), BFLOAT16], ids=str)
def test_rounding_over_the_whole_range(kernels, dtype):
    """Overflow, subnormals and underflow round as NumPy rounds them."""
    exponents = np.linspace(-44, 38, 128 * 128)
    values = (10.0**exponents * np.where(np.arange(128 * 128) % 2, 1, -1)).astype(
        np.float32
    )
    update = ci.LowRankUpdate(values.reshape(128 * 128, 1), np.ones((1, 1), np.float32))
    with np.errstate(over="ignore"):
        expected = values.astype(dtype)
    got = update.apply(np.zeros((128 * 128, 1), dtype=dtype))
    np.testing.assert_array_equal(got[:, 0], expected)


@pytest.mark.parametrize("layout", NUMPY_LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_in_place_in_any_layout(layout, dtype):
    update, weights = make(30, 41, 4)
    weights = weights.astype(dtype)
    expected = update.apply(weights.copy())
    view = NUMPY_LAYOUTS[layout](weights)
    if layout == "read_only":
        with pytest.raises(ci.ArgumentError, match="W: cannot be written"):
            update.apply(view)
        view = weights.copy()
    assert update.apply(view) is view
    np.testing.assert_array_equal(view, expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_torch_parameter_in_place(dtype):
    torch = pytest.importorskip("torch")
    update, weights = make(30, 41, 4)
    weights = weights.astype(dtype)
    parameter = torch.nn.Parameter(to_torch(weights))
    assert update.apply(parameter) is parameter
    expected = update.apply(weights.copy()).astype(np.float64)
    np.testing.assert_array_equal(from_torch(parameter), expected)
    transposed = to_torch(np.ascontiguousarray(weights.T))
    update.T.apply(transposed)
    np.testing.assert_array_equal(from_torch(transposed).T, expected)
    again = to_torch(np.ascontiguousarray(weights.T))
    update.apply(again.T)
    np.testing.assert_array_equal(from_torch(again).T, expected)


@given(
    d_out=st.integers(0, 40),
    d_in=st.integers(0, 40),
    rank=st.integers(0, 9),
    seed=st.integers(0, 2**16),
)
def test_any_shape(d_out, d_in, rank, seed):
    update, weights = make(d_out, d_in, rank, seed)
    expected = weights + update.left @ update.right
    np.testing.assert_allclose(update.apply(weights), expected, atol=1e-12)
    assert update.norm == pytest.approx(np.linalg.norm(update.matrix()), abs=1e-12)


def test_vector_space():
    a, _ = make(12, 9, 2, seed=1)
    b, _ = make(12, 9, 3, seed=2)
    assert (a + b).rank == 5
    np.testing.assert_allclose((a + b).matrix(), a.matrix() + b.matrix())
    np.testing.assert_allclose((a - b).matrix(), a.matrix() - b.matrix())
    np.testing.assert_allclose((np.float32(2.0) * a).matrix(), 2 * a.matrix())
    np.testing.assert_allclose((a * 0.5).matrix(), a.matrix() / 2)
    np.testing.assert_array_equal(a.T.matrix(), a.matrix().T)
    assert (a - a).norm < 1e-12
    zero = ci.LowRankUpdate.zero(12, 9)
    np.testing.assert_array_equal((a + zero).matrix(), a.matrix())
    assert zero.norm == 0.0


def test_compress():
    a, _ = make(12, 9, 2, seed=1)
    b, _ = make(12, 9, 3, seed=2)
    total = (a + b) - b + a
    small = total.compress()
    assert small.rank == 2
    np.testing.assert_allclose(small.matrix(), total.matrix(), atol=1e-12)
    np.testing.assert_allclose(small.right @ small.right.T, np.eye(2), atol=1e-12)
    best = (a + b).compress(rank=1)
    u, s, vt = np.linalg.svd((a + b).matrix())
    np.testing.assert_allclose(
        best.matrix(), s[0] * np.outer(u[:, 0], vt[0]), atol=1e-12
    )
    assert (a - a).compress().norm < 1e-12
    assert ci.LowRankUpdate.zero(4, 3).compress().rank == 0


def test_factors_keep_float32():
    update, _ = make(4, 5, 2, dtype=np.float32)
    for derived in (update, 2 * update, update + update, update.compress()):
        assert derived.left.dtype == derived.right.dtype == np.float32
    half = ci.LowRankUpdate(np.ones((2, 1), BFLOAT16), np.ones((1, 3), np.float16))
    assert half.left.dtype == half.right.dtype == np.float64


def test_refusals():
    update, weights = make(4, 5, 2)
    with pytest.raises(ci.ArgumentError, match=r"W: has shape \(5, 4\).*update\.T"):
        update.apply(weights.T)
    with pytest.raises(ci.ArgumentError, match="right: has shape"):
        ci.LowRankUpdate(np.zeros((4, 2)), np.zeros((3, 5)))
    with pytest.raises(ci.ArgumentError, match="left: has 1 axes"):
        ci.LowRankUpdate(np.zeros(4), np.zeros((1, 5)))
    with pytest.raises(ci.NonFiniteError, match="right: not finite at row 0, column 1"):
        ci.LowRankUpdate(np.zeros((4, 1)), [[0.0, np.nan]])
    with pytest.raises(ci.ArgumentError, match="add"):
        update + update.T
    with pytest.raises(TypeError):
        update + 1
    with pytest.raises(ci.DtypeError, match="W: has dtype int64"):
        update.apply(np.zeros((4, 5), dtype=np.int64))
    with pytest.raises(ci.DtypeError, match="out: has dtype float32"):
        update.apply(weights, out=np.zeros((4, 5), dtype=np.float32))
    for rank in (-1, 1.5, "2"):
        with pytest.raises(ci.ArgumentError, match=f"rank: got {rank!r}"):
            update.compress(rank)
    for tolerance in (-1.0, np.nan):
        with pytest.raises(ci.ArgumentError, match="tolerance: got"):
            update.compress(tolerance=tolerance)
    memory = np.zeros((5, 5))
    with pytest.raises(ci.ArgumentError, match="out: overlaps"):
        update.apply(memory[:4], out=memory[1:])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("m", [0, 1, 5, 40])
def test_displacement(kernels, dtype, m):
    update, weights = make(33, 1100, 3)
    base = weights.astype(dtype)
    changed = update.apply(base.copy())
    inputs = np.random.default_rng(9).normal(size=(m, 1100))
    difference = changed.astype(np.float64) - base.astype(np.float64)
    got = ci.displacement(base, changed, inputs)
    assert got.shape == (m, 33)
    np.testing.assert_allclose(got, inputs @ difference.T, atol=1e-10)
    np.testing.assert_array_equal(ci.displacement(base, base, inputs), 0.0)


def test_displacement_refusals():
    w = np.zeros((3, 4))
    with pytest.raises(ci.ArgumentError, match="changed"):
        ci.displacement(w, w.T, np.zeros((2, 4)))
    with pytest.raises(ci.ArgumentError, match="inputs"):
        ci.displacement(w, w, np.zeros((2, 3)))
    with pytest.raises(ci.DtypeError):
        ci.displacement(w, w.astype(np.float32), np.zeros((2, 4)))


@pytest.mark.parametrize("size", [1e-300, 1e-160, 1e160, 1e300])
def test_norm_of_any_scale(size):
    left, right = np.array([[3.0], [4.0]]), np.array([[1.0, 0.0]])
    expected = pytest.approx(5.0 * size, rel=1e-12, abs=0.0)
    assert ci.LowRankUpdate(size * left, right).norm == expected
    assert ci.LowRankUpdate(left, size * right).norm == expected
    assert ci.LowRankUpdate(size * left, right / size).norm == pytest.approx(5.0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rank", [2, 5, 9])
def test_the_norm_of_factors_that_are_no_smaller_than_the_matrix(rank, dtype):
    rng = np.random.default_rng(rank)
    left, right = rng.normal(size=(5, rank)), rng.normal(size=(rank, 3000))
    update = ci.LowRankUpdate(left.astype(dtype), right.astype(dtype))
    plain = update.left.astype(float) @ update.right.astype(float)
    assert update.norm == pytest.approx(np.linalg.norm(plain), rel=1e-12)
    assert (update * 1e-30).norm == pytest.approx(1e-30 * update.norm, rel=1e-6)
