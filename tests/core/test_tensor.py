# SPDX-License-Identifier: Apache-2.0
"""Inputs of every library, layout and state of ownership give the same result."""

import array
import sys

import numpy as np
import pytest
from support.containers import BFLOAT16, DTYPES, NUMPY_LAYOUTS, to_torch

import cintervene as ci
from cintervene import _core


def sample(dtype, shape=(4, 50)):
    return np.random.default_rng(0).normal(size=shape).astype(dtype)


@pytest.mark.parametrize("layout", NUMPY_LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_numpy_layouts(dtype, layout):
    x = sample(dtype)
    expected = ci.set_nll(x, [3, 4])
    np.testing.assert_array_equal(
        ci.set_nll(NUMPY_LAYOUTS[layout](x), [3, 4]), expected
    )


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 0, 2), (2, 1, 0)])
def test_permuted_axes(axes):
    x = sample(np.float64, (3, 4, 5)).transpose(axes)
    np.testing.assert_array_equal(_core.as_float64(x), x)
    np.testing.assert_array_equal(_core.as_float64(x[:, ::-1, ::-1]), x[:, ::-1, ::-1])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_torch_tensors(dtype):
    x = sample(dtype)
    expected = ci.set_nll(x, [3, 4])
    tensor = to_torch(x)
    views = {
        "plain": tensor,
        "requires_grad": tensor.clone().requires_grad_(),
        "transposed": tensor.t().contiguous().t(),
        "strided": tensor.repeat_interleave(2, dim=1)[:, ::2],
    }
    for name, view in views.items():
        np.testing.assert_array_equal(ci.set_nll(view, [3, 4]), expected, err_msg=name)


def test_torch_expanded_tensor():
    torch = pytest.importorskip("torch")
    row = torch.linspace(-1, 1, 7)
    expanded = row.expand(3, 7)
    np.testing.assert_array_equal(_core.as_float32(expanded), expanded.numpy())
    update = ci.LowRankUpdate(np.ones((3, 1)), np.ones((1, 7)))
    with pytest.raises(ci.ArgumentError, match="W: elements share memory"):
        update.apply(expanded)


def test_accelerator_is_refused_with_the_fix():
    class OnAccelerator:
        shape = (2, 3)

        def __dlpack_device__(self):
            return (2, 0)

        def __dlpack__(self, **kwargs):
            raise AssertionError("must not be called")

    with pytest.raises(ci.ArgumentError, match=r"logits.*\.cpu\(\)"):
        ci.set_nll(OnAccelerator(), [0])


class Producer:
    """DLPack producer that speaks only the old protocol, or a chosen one."""

    def __init__(self, x, versioned):
        self.x = x
        self.shape = x.shape
        self.versioned = versioned

    def __dlpack_device__(self):
        return self.x.__dlpack_device__()

    def __dlpack__(self, **kwargs):
        if kwargs and not self.versioned:
            raise TypeError("unexpected keyword")
        return self.x.__dlpack__(**kwargs)


@pytest.mark.parametrize("versioned", [False, True])
def test_dlpack_versions(versioned):
    x = sample(np.float32)
    producer = Producer(x, versioned)
    np.testing.assert_array_equal(_core.as_float32(producer), x)
    update = ci.LowRankUpdate(np.ones((4, 1)), np.ones((1, 50)))
    if versioned:
        expected = x + np.float32(1)
        assert update.apply(producer) is producer
        np.testing.assert_array_equal(x, expected)
        x.flags.writeable = False
    # A legacy capsule cannot say that it may be written.
    with pytest.raises(ci.ArgumentError, match="W: cannot be written"):
        update.apply(producer)


def test_jax_arrays():
    jnp = pytest.importorskip("jax.numpy")
    x = sample(np.float32)
    np.testing.assert_array_equal(_core.as_float32(jnp.asarray(x)), x)


@pytest.mark.parametrize("code", ["f", "d"])
def test_buffers(code):
    x = array.array(code, [3.0, 4.0])
    np.testing.assert_allclose(ci.project_ball(x, 1.0), [0.6, 0.8], rtol=1e-6)
    assert ci.project_ball(memoryview(x), 1.0, out=x) is x
    np.testing.assert_allclose(x, [0.6, 0.8], rtol=1e-6)
    with pytest.raises(ci.ArgumentError, match="out: cannot be written"):
        ci.project_ball(x, 1.0, out=memoryview(x).toreadonly())


def test_buffer_of_half_precision():
    x = memoryview(np.array([3.0, 4.0], dtype=np.float16))
    np.testing.assert_allclose(ci.project_ball(x, 1.0), [0.6, 0.8], rtol=1e-3)


@pytest.mark.parametrize("x", [[3.0, 4.0], (3, 4), [[3], [4]]])
def test_lists(x):
    expected = np.asarray(x) / np.maximum(1, np.linalg.norm(x, axis=-1, keepdims=True))
    np.testing.assert_allclose(ci.project_ball(x, 1.0), expected)


def test_swapped_bytes():
    x = sample(np.float64)
    np.testing.assert_array_equal(_core.as_float64(x.astype(">f8")), x)
    update = ci.LowRankUpdate(np.ones((4, 1)), np.ones((1, 50)))
    # A copy of swapped bytes has swapped bytes: the message says what does help.
    swapped = x.astype(">f8")
    for weights in (swapped, swapped.copy()):
        with pytest.raises(ci.ArgumentError, match=r"byte order.*dtype=float\)"):
            update.apply(weights)
    changed = update.apply(np.array(swapped, dtype=float))
    np.testing.assert_array_equal(changed, x + 1.0)


def test_fields_of_packed_records():
    records = np.zeros(5, dtype=[("tag", "u1"), ("value", "f4")])
    records["value"] = np.arange(5)
    np.testing.assert_array_equal(_core.as_float64(records["value"]), np.arange(5))


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((2, 3), dtype=np.int64),
        np.zeros((2, 3), dtype=bool),
        np.zeros((2, 3), dtype=complex),
        np.zeros((2, 3), dtype=np.longdouble),
        array.array("i", [1, 2]),
        b"bytes",
        "text",
        None,
        object(),
    ],
    ids=lambda x: type(x).__name__,
)
def test_other_types_are_refused(bad):
    with pytest.raises(ci.DtypeError, match="array: "):
        _core.as_float64(bad)


def test_integer_tensor_is_refused():
    torch = pytest.importorskip("torch")
    with pytest.raises(ci.DtypeError, match=r"array: has dtype torch\.int64"):
        _core.as_float64(torch.zeros(3, dtype=torch.int64))


def test_scalars_and_too_many_axes_are_refused():
    with pytest.raises(ci.ArgumentError, match="array: got a scalar"):
        _core.as_float64(np.float64(1.0))
    with pytest.raises(ci.ArgumentError, match="at most 16"):
        _core.as_float64(np.zeros((1,) * 20))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (2, 0, 4)], ids=str)
def test_empty_arrays(dtype, shape):
    x = np.zeros(shape, dtype=dtype)
    assert _core.as_float64(x).shape == shape
    assert _core.as_float64(to_torch(x)).shape == shape


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_conversion_is_exact(kernels, dtype):
    if dtype.itemsize == 2:
        x = np.arange(2**16, dtype=np.uint16).view(dtype)
    else:
        x = sample(dtype, (3000,))
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(_core.as_float64(x), x.astype(np.float64))
        np.testing.assert_array_equal(_core.as_float32(x), x.astype(np.float32))


def owners():
    yield "numpy", sample(np.float32)
    yield "strided", sample(np.float32, (50, 4)).T
    torch = pytest.importorskip("torch")
    yield "torch", torch.zeros(4, 50)
    yield "parameter", torch.zeros(4, 50, requires_grad=True)
    yield "bfloat16", torch.zeros(4, 50, dtype=torch.bfloat16)
    yield "buffer", memoryview(sample(np.float32))


def test_owners_are_released_after_success_and_failure():
    update = ci.LowRankUpdate(np.ones((4, 1)), np.ones((1, 50)))
    for name, x in owners():
        before = sys.getrefcount(x)
        for _ in range(3):
            ci.project_simplex(x)
            ci.set_nll(x, [0], grad=True)
            update.apply(x)
            with pytest.raises(ci.ArgumentError):
                ci.project_ball(x, 1.0, out=np.zeros((1, 1), dtype=np.float32))
            with pytest.raises(ci.ArgumentError):
                ci.project_ball(np.zeros((1, 1), dtype=np.float32), 1.0, out=x)
        assert sys.getrefcount(x) == before, name


def test_memory_view_can_be_released_afterwards():
    view = memoryview(sample(np.float32))
    ci.project_simplex(view)
    view.release()


def test_bfloat16_of_ml_dtypes_keeps_its_dtype():
    x = sample(BFLOAT16)
    assert ci.project_simplex(x).dtype == BFLOAT16
