# SPDX-License-Identifier: Apache-2.0
"""The benign norm against dense algebra."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cintervene as ci
from cintervene.errors import ArgumentError, NonFiniteError, SingularSystemError
from cintervene.solvers import packed
from cintervene.solvers.preserve import BenignMoments, Preserve
from cintervene.solvers.update import LowRankUpdate
from cintervene.utils.runtime import thread_limit


def dense(x, ridge):
    absolute = ridge * np.sum(x**2) / x.size
    return absolute * np.eye(x.shape[1]) + x.T @ x / len(x)


@given(
    seed=st.integers(0, 2**31),
    rows=st.integers(1, 30),
    d_in=st.integers(1, 20),
    m=st.integers(0, 5),
    ridge=st.sampled_from([1e-4, 1e-2, 1.0]),
)
@settings(max_examples=60)
def test_solve_and_norm_equal_dense_algebra(seed, rows, d_in, m, ridge):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, d_in)) * np.linspace(2.0, 0.1, d_in)
    h = rng.standard_normal((m, d_in))
    p = dense(x, ridge)
    preserve = Preserve(x, ridge=ridge)
    expected = np.linalg.solve(p, h.T).T
    scale = np.abs(expected).max(initial=1.0)
    np.testing.assert_allclose(preserve.solve(h), expected, atol=1e-9 * scale)
    update = LowRankUpdate(rng.standard_normal((7, 3)), rng.standard_normal((3, d_in)))
    delta = update.matrix()
    norm = np.sqrt(np.trace(delta @ p @ delta.T))
    assert np.isclose(preserve.norm(update), norm, rtol=1e-10)
    assert np.isclose(preserve.norm(delta), norm, rtol=1e-10)


@pytest.mark.parametrize("rows", [4, 60])
def test_solve_leaves_its_argument_alone(rows):
    rng = np.random.default_rng(0)
    preserve = Preserve(rng.standard_normal((rows, 12)))
    h = rng.standard_normal((3, 12))
    before = h.copy()
    preserve.solve(h)
    np.testing.assert_array_equal(h, before)


@pytest.mark.parametrize("rows", [5, 40])
def test_with_ridge_equals_a_fresh_one(rows):
    rng = np.random.default_rng(1)
    x, h = rng.standard_normal((rows, 12)), rng.standard_normal((3, 12))
    shared = Preserve(x, ridge=1.0).with_ridge(1e-3)
    np.testing.assert_array_equal(shared.solve(h), Preserve(x, ridge=1e-3).solve(h))
    absolute = Preserve(x).with_ridge(ridge_absolute=0.5)
    assert absolute.ridge == 0.5


@pytest.mark.parametrize("rows", [5, 40, 700])
def test_a_norm_of_a_factor_alone_is_the_same(rows):
    rng = np.random.default_rng(1)
    x, h = rng.standard_normal((rows, 300)), rng.standard_normal((3, 300))
    kept = BenignMoments(300).add(x[:4]).add(x[4:])
    expected = kept.preserve(0.1)
    moments = BenignMoments(300).add(x[:4]).add(x[4:])
    found = moments.factored(0.1)
    assert moments.count == 0
    assert (found.d_in, found.ridge) == (300, expected.ridge)
    np.testing.assert_array_equal(found.solve(h), expected.solve(h))
    np.testing.assert_allclose(found.gram(h), expected.gram(h), rtol=1e-10, atol=1e-12)
    assert found.norm(h) == pytest.approx(expected.norm(h))
    # A norm that was given before reads the sum still.
    before = expected.gram(h)
    kept.factored(0.1)
    np.testing.assert_array_equal(expected.gram(h), before)


def test_a_norm_of_a_factor_alone_has_its_ridge_for_good():
    x = np.random.default_rng(1).standard_normal((40, 12))
    with pytest.raises(ArgumentError, match=r"BenignMoments\.preserve"):
        BenignMoments(12).add(x).factored().with_ridge(1.0)
    with pytest.raises(ArgumentError, match="all zero or none"):
        BenignMoments(12).factored()


def test_large_ridge_is_the_plain_norm():
    rng = np.random.default_rng(2)
    preserve = Preserve(rng.standard_normal((30, 8)), ridge_absolute=1e9)
    h = rng.standard_normal((2, 8))
    np.testing.assert_allclose(preserve.solve(h) * 1e9, h, rtol=1e-6)


def test_moments_in_chunks_equal_all_rows_at_once():
    rng = np.random.default_rng(3)
    x = rng.standard_normal((50, 9))
    first = BenignMoments(9).add(x[:20]).add(x[20:31])
    second = BenignMoments(9).add(x[31:])
    together = first.merge(second)
    assert together.count == 50
    h = rng.standard_normal((4, 9))
    np.testing.assert_allclose(
        together.preserve(1e-3).solve(h), Preserve(x, 1e-3).solve(h), rtol=1e-9
    )


@pytest.mark.parametrize("d_in", [9, 18, 30, 60])
def test_moments_equal_the_plain_formula_however_many_inputs_there_are(d_in):
    """Of few inputs rows are kept, of more a sum; of some before, and after merging."""
    rng = np.random.default_rng(9)
    x, y = rng.standard_normal((16, d_in)), rng.standard_normal((20, d_in))
    moments = BenignMoments(d_in).add(x[:7]).add(x[7:])
    moments.merge(BenignMoments(d_in).add(y[:4]).add(y[4:]), weight=2.5)
    count = 16 + 2.5 * 20
    assert moments.count == count
    total = x.T @ x + 2.5 * y.T @ y
    ridge = 0.1 * np.trace(total) / (count * d_in)
    p = total / count + ridge * np.eye(d_in)
    preserve, h = moments.preserve(ridge=0.1), rng.standard_normal((3, d_in))
    assert preserve.ridge == pytest.approx(ridge, rel=1e-12)
    np.testing.assert_allclose(preserve.solve(h), np.linalg.solve(p, h.T).T, rtol=1e-9)
    np.testing.assert_allclose(preserve.gram(h), h @ p @ h.T, rtol=1e-9)


def test_chunks_are_not_those_of_the_caller():
    x, h = np.random.default_rng(10).standard_normal((2, 6, 9))
    moments = BenignMoments(9).add(x)
    before = moments.preserve().solve(h)
    x *= 2.0
    np.testing.assert_array_equal(moments.preserve().solve(h), before)


def test_preserve_does_not_follow_later_additions():
    rng = np.random.default_rng(4)
    moments = BenignMoments(5).add(rng.standard_normal((20, 5)))
    preserve = moments.preserve()
    h = rng.standard_normal((2, 5))
    moments.add(100.0 * rng.standard_normal((20, 5)))
    fresh = moments.preserve().solve(h)
    assert not np.allclose(preserve.solve(h), fresh)


@pytest.mark.parametrize("d_in", [30, 700])
def test_moments_that_grow_in_place_are_the_same_to_the_bit(d_in):
    rng = np.random.default_rng(11)
    x = rng.standard_normal((800, d_in)).astype(np.float32)
    h, norms, lent = rng.standard_normal((3, d_in)), [], []
    for in_place in (False, True):
        moments = BenignMoments(d_in, in_place=in_place).add(x[:500])
        norm = moments.preserve()
        lent.append((norm, norm.gram(h)))
        moments.add(x[500:700])
        other = BenignMoments(d_in, in_place=in_place).add(x[300:]).add(x[:9])
        moments.merge(other, weight=2.5).merge(other)
        norms.append(moments.factored().solve(h))
    np.testing.assert_array_equal(*norms)
    # What was lent before an addition is as it was.
    for norm, before in lent:
        np.testing.assert_array_equal(norm.gram(h), before)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_no_more_inputs_are_held_than_half_of_the_dimensions(dtype):
    d_in, rows = 512, 64
    x = np.random.default_rng(13).standard_normal((rows, d_in)).astype(dtype)
    triangle = 4 * d_in * (d_in + packed.BLOCK)
    moments, held = BenignMoments(d_in, in_place=True), []
    tracemalloc.start()
    for _ in range(8):
        moments.add(x)
        held.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    inputs = [x.nbytes * count for count in (1, 2, 3, 4)]
    np.testing.assert_allclose(held, inputs + 4 * [triangle], rtol=0.05)


@pytest.mark.parametrize("chunk", [1500, 700])
def test_moments_that_grow_in_place_make_no_second_sum(chunk):
    d_in = 2048
    x = np.random.default_rng(12).standard_normal((chunk, d_in)).astype(np.float32)
    moments = BenignMoments(d_in, in_place=True).add(x).add(x).add(x)
    other = BenignMoments(d_in).add(x[:600])
    held = moments._gathered.sum.nbytes

    def most(call):
        tracemalloc.start()
        call()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    assert most(lambda: moments.add(x)) < 0.1 * held
    # Rows that are weighted are wider than they were, some at a time.
    assert most(lambda: moments.merge(other, weight=3.0)) < 0.7 * held
    assert most(moments.factored) < 0.5 * held


def test_the_norm_of_a_whole_matrix_needs_no_square_of_it():
    """Of as many rows as columns: some at a time are measured."""
    rng = np.random.default_rng(13)
    preserve = Preserve(rng.standard_normal((40, 30)))
    change = rng.standard_normal((700, 30))
    square = np.trace(change @ preserve.gram(np.eye(30)) @ change.T)
    assert preserve.norm(change) == pytest.approx(np.sqrt(square), rel=1e-12)


def test_from_matrix():
    rng = np.random.default_rng(5)
    a = rng.standard_normal((6, 6))
    p = a @ a.T + np.eye(6)
    h = rng.standard_normal((3, 6))
    np.testing.assert_allclose(
        Preserve.from_matrix(p).solve(h), np.linalg.solve(p, h.T).T, rtol=1e-9
    )
    with pytest.raises(ArgumentError, match="expected a symmetric matrix"):
        Preserve.from_matrix(a)
    with pytest.raises(SingularSystemError, match="singular"):
        Preserve.from_matrix(-np.eye(6)).solve(h)


def test_low_precision_inputs_are_taken_as_they_are():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(6)
    for rows in (6, 40):
        x = torch.tensor(rng.standard_normal((rows, 16))).to(torch.bfloat16)
        wide = x.to(torch.float64).numpy()
        h = rng.standard_normal((2, 16))
        np.testing.assert_array_equal(Preserve(x).solve(h), Preserve(wide).solve(h))


def test_same_bits_for_any_number_of_threads():
    rng = np.random.default_rng(7)
    x = rng.standard_normal((900, 300)).astype(np.float32)
    h = rng.standard_normal((70, 300))
    results = []
    for threads in (1, 2, 3, 8):
        with thread_limit(threads):
            results.append(Preserve(x).solve(h))
    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Preserve(np.zeros(3)), "benign_inputs: got shape"),
        (lambda: Preserve(np.zeros((4, 3))), "benign_inputs: all zero"),
        (lambda: Preserve(np.zeros((2, 3))), "benign_inputs: all zero"),
        (lambda: Preserve(np.ones((4, 3)), ridge=0.0), "ridge: got 0.0"),
        (lambda: Preserve(np.ones((4, 3)), ridge=np.nan), "ridge: got nan"),
        (lambda: Preserve(np.ones((4, 3))).solve(np.ones((1, 2))), "inputs: has 2"),
        (lambda: BenignMoments(0), "d_in: got 0"),
        (lambda: BenignMoments(2.5), "d_in: got 2.5; expected a whole number"),
        (lambda: BenignMoments(10**30), r"d_in: got 10+; expected less than 2\*\*63"),
        (lambda: BenignMoments(3).add(np.ones((1, 2))), "chunk: has 2 columns"),
        (lambda: BenignMoments(3).merge(BenignMoments(2)), "other: has d_in 2"),
        (lambda: BenignMoments(3).preserve(), "all zero or none"),
    ],
)
def test_errors_name_the_argument(build, message):
    with pytest.raises(ArgumentError, match=message):
        build()


@pytest.mark.parametrize("rows", [2, 40])
def test_non_finite_inputs_are_refused(rows):
    x = np.ones((rows, 8))
    x[1, 3] = np.inf
    with pytest.raises(NonFiniteError, match="row 1, column 3"):
        Preserve(x)


@pytest.mark.parametrize("size", [1e-300, 1e-160, 1e160, 1e300])
def test_norm_of_any_scale(size):
    preserve = Preserve([[1.0, 0.0]], ridge=1.0)  # P = diag(1.5, 0.5)
    update = LowRankUpdate([[3.0 * size], [4.0 * size]], [[1.0, 0.0]])
    expected = pytest.approx(5.0 * np.sqrt(1.5) * size, rel=1e-12, abs=0.0)
    assert preserve.norm(update) == expected
    assert preserve.norm(update.matrix()) == expected


@pytest.mark.parametrize("norm", [np.eye(3), BenignMoments(3), "plain", 1.0])
def test_what_is_no_norm_is_refused_by_every_solver(norm):
    x, y = np.ones((2, 3)), np.ones((2, 4))
    problem = x, y, y[:1], 1.0
    solution = ci.pcr(*problem)
    kind = type(norm).__name__
    for solve in (
        lambda: ci.pcr(*problem, preserve=norm),
        lambda: ci.certify(solution, *problem, preserve=norm),
        lambda: ci.tsr(x, y, [1], 1.0, preserve=norm),
        lambda: ci.arr(x, y, [1], 1.0, preserve=norm),
        lambda: ci.ProjectedGradient(x, 1.0, preserve=norm),
    ):
        with pytest.raises(ArgumentError, match=f"preserve: got {kind}"):
            solve()
