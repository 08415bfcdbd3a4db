# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from support import reference
from support.containers import BFLOAT16, DTYPES, to_torch

import cintervene as ci

EPS = {"float64": 1e-13, "float32": 1e-6, "float16": 1e-3, "bfloat16": 8e-3}
SHAPES = [(1,), (5,), (3, 1), (4, 63), (2, 3, 257), (2, 5000)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
def test_simplex_matches_sorting(kernels, dtype, shape, scale):
    x = (np.random.default_rng(1).normal(size=shape) * scale).astype(dtype)
    p = ci.project_simplex(x)
    assert p.dtype == dtype
    np.testing.assert_allclose(
        p.astype(np.float64), reference.project_simplex(x), atol=EPS[str(dtype)]
    )


@pytest.mark.parametrize("case", ["uniform", "equal", "far", "ordered", "one"])
def test_simplex_of_special_rows(kernels, case):
    n = 3000
    x = {
        "uniform": np.random.default_rng(2).random(n),
        "equal": np.full(n, 1e6),
        "far": np.where(np.arange(n) == 7, 1e300, -1e300),
        "ordered": np.linspace(-5, 5, n),
        "one": np.eye(n)[5],
    }[case]
    p = ci.project_simplex(x)
    np.testing.assert_allclose(p, reference.project_simplex(x), atol=1e-12)
    assert p.sum() == pytest.approx(1.0, abs=1e-10)


rows = hnp.arrays(
    np.float64,
    hnp.array_shapes(min_dims=1, max_dims=3, max_side=40),
    elements=st.floats(1e-90, 1e6)
    | st.floats(-1e6, -1e-90)
    | st.sampled_from([0.0, -0.0, 1.0]),
)


@given(x=rows)
def test_simplex_result_is_the_nearest_probability(x):
    p = ci.project_simplex(x)
    assert (p >= 0).all()
    np.testing.assert_allclose(p.sum(-1), 1.0, atol=1e-9)
    # Optimality: x - p is largest, and constant, on the support.
    gap = x - p
    support = np.where(p > 0, gap, np.inf).min(-1, keepdims=True)
    assert (gap <= support + 1e-9 * (1 + np.abs(x))).all()
    np.testing.assert_allclose(ci.project_simplex(p), p, atol=1e-9)


def test_simplex_excludes_minus_infinity(kernels):
    np.testing.assert_array_equal(
        ci.project_simplex(np.array([-np.inf, 0.0, -np.inf, 0.0])), [0, 0.5, 0, 0.5]
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_ball_matches_reference(kernels, dtype, shape):
    x = np.random.default_rng(3).normal(size=shape).astype(dtype)
    y = ci.project_ball(x, 0.75)
    assert y.dtype == dtype
    np.testing.assert_allclose(
        y.astype(np.float64), reference.project_ball(x, 0.75), atol=EPS[str(dtype)]
    )


def test_ball_radius_for_each_row():
    x = np.random.default_rng(4).normal(size=(2, 3, 8))
    radius = np.array([[0.0, 0.5, np.inf], [1.0, 100.0, 0.1]])
    expected = reference.project_ball(x, radius[..., None])
    expected[0, 2] = x[0, 2]
    np.testing.assert_allclose(ci.project_ball(x, radius), expected)
    np.testing.assert_allclose(
        ci.project_ball(x, radius[0]), ci.project_ball(x, np.stack([radius[0]] * 2))
    )


@pytest.mark.parametrize("size", [1e-320, 1e-200, 1e200, 1.7e308])
def test_ball_beyond_the_range_of_squares(kernels, size):
    x = np.array([[size, -size], [size, 0.0]])
    y = ci.project_ball(x, size / 2)
    np.testing.assert_allclose(
        y / size * 2, [[0.5**0.5, -(0.5**0.5)], [1, 0]], rtol=1e-3
    )


def test_ball_of_largest_float32(kernels):
    x = np.full((1, 4), np.finfo(np.float32).max)
    np.testing.assert_allclose(ci.project_ball(x, 1.0), [[0.5] * 4], rtol=1e-6)


@given(x=rows, radius=st.floats(1e-90, 1e4) | st.just(0.0))
def test_ball_result_is_inside_and_along(x, radius):
    y = ci.project_ball(x, radius)
    norms = np.linalg.norm(x, axis=-1)
    np.testing.assert_allclose(
        np.linalg.norm(y, axis=-1), np.minimum(norms, radius), rtol=1e-12, atol=1e-300
    )
    inside = norms < radius
    np.testing.assert_array_equal(y[inside], x[inside])


@pytest.mark.parametrize(
    "project", [ci.project_simplex, lambda x, **k: ci.project_ball(x, 1, **k)]
)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_output_arrays(project, dtype):
    x = np.random.default_rng(5).normal(size=(3, 40)).astype(dtype)
    expected = project(x)
    wide = np.zeros((3, 80), dtype=dtype)
    assert project(x, out=wide[:, ::2]).base is wide
    np.testing.assert_array_equal(wide[:, ::2], expected)
    np.testing.assert_array_equal(wide[:, 1::2], 0)
    assert project(x, out=x) is x
    np.testing.assert_array_equal(x, expected)


def test_bfloat16_of_torch():
    x = np.random.default_rng(6).normal(size=(3, 40)).astype(BFLOAT16)
    tensor = to_torch(x)
    p = ci.project_simplex(tensor)
    assert p.dtype == np.float32
    np.testing.assert_allclose(p, reference.project_simplex(x), atol=1e-6)
    assert ci.project_simplex(tensor, out=tensor) is tensor
    np.testing.assert_allclose(tensor.float().numpy(), p, rtol=4e-3)


@pytest.mark.parametrize("shape", [(0, 5), (2, 0, 3), (0,), (3, 0)], ids=str)
def test_empty_arrays(shape):
    x = np.zeros(shape)
    assert ci.project_ball(x, 1.0).shape == shape
    if shape in [(0,), (3, 0)]:
        with pytest.raises(ci.ArgumentError, match="empty"):
            ci.project_simplex(x)
    else:
        assert ci.project_simplex(x).shape == shape


def test_refusals():
    x = np.zeros((2, 3))
    with pytest.raises(ci.ArgumentError, match=r"radius: got -1\.0"):
        ci.project_ball(x, -1)
    with pytest.raises(ci.ArgumentError, match="radius: got nan"):
        ci.project_ball(x, np.nan)
    with pytest.raises(ci.ArgumentError, match="radius: has shape"):
        ci.project_ball(x, np.ones(3))
    with pytest.raises(ci.ArgumentError, match="out"):
        ci.project_simplex(x, out=np.zeros((3, 2)))
    with pytest.raises(ci.DtypeError, match="out"):
        ci.project_simplex(x, out=np.zeros((2, 3), dtype=np.float32))
    overlapping = np.zeros(7)
    with pytest.raises(ci.ArgumentError, match="overlap"):
        ci.project_simplex(overlapping[:6], out=overlapping[1:])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nonfinite_values_are_named(bad):
    x = np.zeros((3, 50))
    x[1, 17] = bad
    with pytest.raises(ci.NonFiniteError, match=r"x.*row 1, column 17"):
        ci.project_ball(x, 1.0)
    if bad != -np.inf:
        with pytest.raises(ci.NonFiniteError, match=r"x.*row 1, column 17"):
            ci.project_simplex(x)


def test_simplex_of_row_without_any_entry():
    with pytest.raises(ci.NonFiniteError, match="-inf throughout"):
        ci.project_simplex(np.full((2, 3), -np.inf))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("entropy", [0.0, 0.1, 0.4, 0.5, 0.6, 2 / 3, 0.74, 0.8, 1.0])
def test_entropy_matches_every_face(n, entropy):
    rng = np.random.default_rng(11)
    rows = [rng.normal(size=n) * scale for scale in (0.01, 0.3, 3.0) for _ in range(8)]
    rows += [np.round(rng.normal(size=n)) for _ in range(20)]
    rows += [np.zeros(n), np.eye(n)[-1], np.full(n, 1e6), -np.arange(n)]
    for x in rows:
        p = ci.project_simplex(np.asarray(x, dtype=np.float64), entropy=entropy)
        expected, distance = reference.project_simplex_entropy(x, entropy)
        assert p.min() >= 0.0
        assert p.sum() == pytest.approx(1.0, abs=1e-9)
        assert 1 - np.sum(p**2) <= entropy + 1e-9
        assert np.sum((p - x) ** 2) == pytest.approx(distance, rel=1e-9, abs=1e-9)
        if len(set(x)) == n:
            np.testing.assert_allclose(p, expected, atol=1e-7)


@given(x=rows, entropy=st.floats(0.0, 1.0))
def test_entropy_result_is_no_farther_than_any_other(x, entropy):
    p = ci.project_simplex(x, entropy=entropy)
    assert (p >= 0).all()
    np.testing.assert_allclose(p.sum(-1), 1.0, atol=1e-9)
    assert (1 - np.sum(p**2, axis=-1) <= entropy + 1e-9).all()
    free = ci.project_simplex(x)
    allowed = 1 - np.sum(free**2, axis=-1) < entropy
    np.testing.assert_array_equal(p[allowed], free[allowed])
    # Among all p of one norm, nearer means a larger inner product with x.
    n, rng = x.shape[-1], np.random.default_rng(0)
    others = rng.dirichlet(np.full(n, 0.2), size=200)
    others = others[1 - np.sum(others**2, axis=-1) <= entropy]
    if len(others) > 0:
        away = np.sum((others[:, None] - x.reshape(-1, n)) ** 2, axis=-1).min(axis=0)
        ours = np.sum((p - x) ** 2, axis=-1).reshape(-1)
        assert (ours <= away * (1 + 1e-9) + 1e-9).all()


def test_entropy_ties_raise_the_first():
    p = ci.project_simplex(np.zeros(4), entropy=0.5)
    np.testing.assert_allclose(np.sum(p**2), 0.5)
    assert p[0] > p[1] == p[2] == p[3] > 0
    p = ci.project_simplex(np.array([-1.0, 5.0, 0.0, 5.0]), entropy=0.5)
    np.testing.assert_allclose(p, [0, 0.5, 0, 0.5])
    p = ci.project_simplex(np.array([1.0, 3.0, 3.0]), entropy=0.0)
    np.testing.assert_array_equal(p, [0, 1, 0])


@pytest.mark.parametrize("size", [1e-200, 1e-20, 1.0, 1e20, 1e300])
def test_entropy_depends_on_directions_only(size):
    x = np.random.default_rng(12).normal(size=50)
    small = ci.project_simplex(x * min(size, 1e-3), entropy=0.9)
    expected = ci.project_simplex(x * 1e-3, entropy=0.9)
    np.testing.assert_allclose(small, expected, rtol=1e-9, atol=1e-12)
    assert np.isfinite(ci.project_simplex(x * size, entropy=0.9)).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("entropy", [0.0, 0.3, 0.99])
def test_entropy_of_storage_types(kernels, dtype, entropy):
    x = np.random.default_rng(13).normal(size=(4, 3000)).astype(dtype)
    wide = ci.project_simplex(x.astype(np.float64) * 1e-3, entropy=entropy)
    np.testing.assert_allclose(1 - np.sum(wide**2, axis=-1), entropy, atol=1e-12)
    p = ci.project_simplex(x, entropy=entropy, out=np.empty_like(x))
    expected = ci.project_simplex(x.astype(np.float64), entropy=entropy)
    np.testing.assert_allclose(p.astype(float), expected, atol=EPS[str(dtype)])
    assert ci.project_simplex(x, entropy=entropy, out=x) is x
    np.testing.assert_array_equal(x, p)


def test_entropy_skips_excluded_entries_and_refuses_nonsense():
    x = np.array([-np.inf, 0.0, -np.inf, 0.1])
    p = ci.project_simplex(x, entropy=0.4)
    np.testing.assert_allclose(np.sum(p**2), 0.6)
    assert p[0] == p[2] == 0.0
    for bad in (-0.1, np.nan):
        with pytest.raises(ci.ArgumentError, match="entropy: got"):
            ci.project_simplex(x, entropy=bad)
