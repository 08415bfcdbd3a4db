# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import reference
from support.containers import DTYPES

import cintervene as ci


def tolerance(dtype):
    return 1e-13 if dtype == np.float64 else 2e-6


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (2, 1024), (2, 1025), (5, 5000)])
def test_matches_reference(kernels, dtype, shape):
    rng = np.random.default_rng(1)
    logits = (rng.normal(size=shape) * 6).astype(dtype)
    ids = rng.choice(shape[1], size=min(shape[1], 5), replace=False)
    loss, grad = ci.set_nll(logits, ids, grad=True)
    expected_loss, expected_grad = reference.set_nll(logits, [ids] * shape[0])
    assert grad.dtype == (np.float64 if dtype == np.float64 else np.float32)
    np.testing.assert_allclose(loss, expected_loss, atol=tolerance(dtype), rtol=1e-6)
    np.testing.assert_allclose(grad, expected_grad, atol=tolerance(dtype))
    np.testing.assert_array_equal(ci.set_nll(logits, ids), loss)


def test_row_longer_than_all_blocks(kernels):
    rng = np.random.default_rng(2)
    logits = rng.normal(size=(1, 1024 * 256 + 17)).astype(np.float32) * 3
    loss, grad = ci.set_nll(logits, [5, 262160], grad=True)
    expected_loss, expected_grad = reference.set_nll(logits, [[5, 262160]])
    np.testing.assert_allclose(loss, expected_loss, atol=1e-5)
    np.testing.assert_allclose(grad, expected_grad, atol=1e-7)


def test_gradient_is_the_derivative():
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(2, 9))
    _, grad = ci.set_nll(logits, [1, 4], grad=True)
    step = 1e-6
    for index in np.ndindex(logits.shape):
        moved = np.zeros_like(logits)
        moved[index] = step
        slope = ci.set_nll(logits + moved, [1, 4]) - ci.set_nll(logits - moved, [1, 4])
        assert slope.sum() / (2 * step) == pytest.approx(grad[index], abs=1e-8)


def test_sets_of_each_row():
    logits = np.random.default_rng(4).normal(size=(3, 10))
    sets = [[1], [2, 3, 4], [9, 0]]
    expected, _ = reference.set_nll(logits, sets)
    np.testing.assert_allclose(ci.set_nll(logits, sets), expected)
    square = np.array([[1, 2], [3, 3], [9, 0]])
    expected, _ = reference.set_nll(logits, square)
    np.testing.assert_allclose(ci.set_nll(logits, square), expected)


def test_repeated_token_counts_once():
    logits = np.random.default_rng(5).normal(size=(2, 10))
    np.testing.assert_array_equal(
        ci.set_nll(logits, [3, 3, 7, 3]), ci.set_nll(logits, [7, 3])
    )


def test_leading_axes_are_rows():
    logits = np.random.default_rng(6).normal(size=(2, 3, 10))
    loss, grad = ci.set_nll(logits, [1, 2], grad=True)
    flat_loss, flat_grad = ci.set_nll(logits.reshape(6, 10), [1, 2], grad=True)
    np.testing.assert_array_equal(loss, flat_loss)
    np.testing.assert_array_equal(grad, flat_grad.reshape(2, 3, 10))


def test_gradient_into_given_array():
    logits = np.random.default_rng(7).normal(size=(3, 10)).astype(np.float32)
    target = np.full((3, 20), 7.0, dtype=np.float32)
    _, grad = ci.set_nll(logits, [1], grad=target[:, ::2])
    assert grad.base is target
    np.testing.assert_array_equal(target[:, ::2], ci.set_nll(logits, [1], grad=True)[1])
    np.testing.assert_array_equal(target[:, 1::2], 7.0)


def test_masked_tokens(kernels):
    logits = np.array([[0.0, -np.inf, 1.0], [-np.inf, 2.0, -np.inf]])
    loss, grad = ci.set_nll(logits, [0, 1], grad=True)
    np.testing.assert_allclose(loss, [-np.log(1 / (1 + np.e)), 0.0], atol=1e-15)
    assert np.isfinite(grad).all()
    loss, grad = ci.set_nll(logits[:1], [1], grad=True)
    assert loss[0] == np.inf
    np.testing.assert_allclose(grad, reference.softmax(logits[:1]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extreme_logits(kernels, dtype):
    logits = np.zeros((3, 3000), dtype=dtype)
    logits[0, 2999] = 1e4
    logits[1, :] = np.finfo(dtype).max
    logits[2, 0] = np.finfo(dtype).min
    loss, grad = ci.set_nll(logits, [0], grad=True)
    np.testing.assert_allclose(loss[:2], [1e4, np.log(3000)])
    assert loss[2] >= -np.finfo(dtype).min * 0.99
    assert np.isfinite(grad).all()


@given(
    rows=st.integers(0, 4),
    vocab=st.integers(1, 70),
    scale=st.sampled_from([0.0, 1e-3, 1.0, 50.0, 1e4]),
    seed=st.integers(0, 2**16),
)
def test_gradient_rows_sum_to_zero(rows, vocab, scale, seed):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(rows, vocab)) * scale
    loss, grad = ci.set_nll(logits, [vocab - 1], grad=True)
    assert loss.shape == (rows,)
    assert grad.shape == (rows, vocab)
    assert (loss >= -1e-12).all()
    np.testing.assert_allclose(grad.sum(-1), 0.0, atol=1e-12)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_bad_logit_is_named(bad):
    logits = np.zeros((4, 2000), dtype=np.float32)
    logits[2, 1500] = bad
    with pytest.raises(ci.NonFiniteError, match=r"logits.*row 2, column 1500"):
        ci.set_nll(logits, [0])


def test_row_without_any_token():
    with pytest.raises(ci.NonFiniteError, match="-inf throughout"):
        ci.set_nll(np.full((2, 4), -np.inf), [0])


@pytest.mark.parametrize(
    ("token_ids", "error", "message"),
    [
        ([], ci.ArgumentError, "empty"),
        ([[1], []], ci.ArgumentError, "empty"),
        ([10], ci.ArgumentError, "got 10"),
        ([-1], ci.ArgumentError, "got -1"),
        ([[1], [2], [3]], ci.ArgumentError, "3 sets for 2 rows"),
        ([0.5], ci.DtypeError, "integers"),
        ([[[1]]], ci.ArgumentError, "axes"),
    ],
)
def test_bad_token_ids(token_ids, error, message):
    with pytest.raises(error, match=message):
        ci.set_nll(np.zeros((2, 10)), token_ids)


def test_bad_gradient_arrays():
    logits = np.zeros((2, 10), dtype=np.float32)
    with pytest.raises(ci.DtypeError, match="grad"):
        ci.set_nll(logits, [0], grad=np.zeros((2, 10)))
    with pytest.raises(ci.ArgumentError, match="grad"):
        ci.set_nll(logits, [0], grad=np.zeros((2, 9), dtype=np.float32))
    with pytest.raises(ci.ArgumentError, match="overlap"):
        ci.set_nll(logits, [0], grad=logits)
