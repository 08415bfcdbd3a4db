# SPDX-License-Identifier: Apache-2.0
"""What only looks like an array of numbers is refused by name, at every function."""

import ctypes

import numpy as np
import pytest
from support.fuzz.entries import all_entries, results

import cintervene as ci
from cintervene import _core

torch = pytest.importorskip("torch")

ENTRIES = {entry.name: entry for entry in all_entries()}


def fake(x):
    """A tensor without data, as compilers and `torch.device("meta")` make them."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        return torch.zeros(x.shape, dtype=torch.float64)


def jagged(x):
    rows = [torch.from_numpy(np.array(row, ndmin=1)) for row in np.atleast_1d(x)]
    return torch.nested.nested_tensor(rows)


def quantised(x):
    return torch.quantize_per_tensor(torch.from_numpy(x).float(), 0.1, 0, torch.quint8)


def structured(x):
    return np.zeros(x.shape, dtype=[("a", "f4"), ("b", "f4")])


ODD = {
    "meta": lambda x: torch.zeros(x.shape, device="meta"),
    "fake": fake,
    "zero tensor": lambda x: torch._efficientzerotensor(x.shape),
    "sparse": lambda x: torch.from_numpy(x).to_sparse(),
    "nested": jagged,
    "quantised": quantised,
    "conjugate": lambda x: torch.complex(*[torch.from_numpy(x)] * 2).conj(),
    "complex": lambda x: x.astype(complex),
    "masked": lambda x: np.ma.array(x, mask=x > 0),
    "nothing masked": np.ma.array,
    "masked in a list": lambda x: [np.ma.array(row, mask=row > 0) for row in x],
    "text": lambda x: x.astype(str),
    "lists of text": lambda x: x.astype(str).tolist(),
    "objects": lambda x: x.astype(object),
    "None in a list": lambda x: [None, *x[1:].tolist()],
    "records": structured,
    "dates": lambda x: np.zeros(x.shape, dtype="M8[D]"),
    "durations": lambda x: np.zeros(x.shape, dtype="m8[s]"),
    "ragged": lambda x: [[0.0], [0.0, 1.0], *x[2:].tolist()],
    "too large": lambda x: torch.zeros([1] * x.ndim).expand([2**31] * 2),
    "nothing": lambda x: None,
    "a set": lambda x: set(x.reshape(-1)),
}


def negated(x):
    """A tensor of the same values whose sign is still to be turned."""
    values = torch.complex(torch.zeros(x.shape, dtype=torch.float64), torch.tensor(-x))
    result = values.conj().imag
    assert result.is_neg()
    return result


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("name", ENTRIES)
@pytest.mark.filterwarnings("ignore")
def test_refused(name, odd):
    entry = ENTRIES[name]
    for place in range(len(entry.arrays)):
        arrays = entry.fresh()
        given = list(arrays)
        given[place] = ODD[odd](arrays[place])
        if odd == "nothing" and (name, place) in OPTIONAL:
            continue
        with pytest.raises(ci.CinterveneError) as caught:
            entry.call(*given)
        assert str(caught.value).isprintable()
        for i, array in enumerate(arrays):
            if i not in entry.written:
                np.testing.assert_array_equal(array, entry.arrays[i])


# Arguments that may be left out.
OPTIONAL = {
    ("set_nll", 1),
    ("project_ball", 2),
    ("project_simplex", 1),
    ("apply", 1),
    ("pcr", 2),
    ("most_violated", 2),
    ("certify", 2),
    ("certify", 6),
    ("resumed descent", 1),
    ("resumed descent", 3),
}


@pytest.mark.parametrize("name", ENTRIES)
def test_signs_still_to_be_turned(name):
    entry = ENTRIES[name]
    expected = results(entry.call(*entry.fresh()))
    for place, array in enumerate(entry.arrays):
        if array.dtype != np.float64:
            continue
        given = entry.fresh()
        given[place] = negated(array)
        if place in entry.written:
            with pytest.raises(ci.ArgumentError, match="cannot be written"):
                entry.call(*given)
            continue
        for got, right in zip(results(entry.call(*given)), expected, strict=True):
            np.testing.assert_array_equal(got, right)


def test_zero_strides_on_inner_axes():
    x = torch.arange(24.0).reshape(6, 4)
    for view in (
        x[:3].unsqueeze(1).expand(3, 5, 4),
        x[:3].unsqueeze(0).expand(2, 3, 4),
        x[:2, None, None].expand(2, 3, 5, 4),
        x[None, :2, None, :].expand(4, 2, 5, 4),
        x.unsqueeze(2).expand(6, 4, 3),
    ):
        np.testing.assert_array_equal(_core.as_float64(view), view.double().numpy())
        np.testing.assert_array_equal(_core.as_float64(view.numpy()), view.numpy())


def test_counts_that_overflow():
    for shape in [(2**31, 2**31), (2**60, 1), (2**20, 2**20, 2**20)]:
        with pytest.raises(ci.ArgumentError, match=r"array: .* 2\*\*47 elements"):
            _core.as_float64(torch.zeros(1).expand(shape))
    rows = torch.zeros(1, 0).expand(2**31, 0)
    with pytest.raises(MemoryError):
        _core.product_nt(rows, rows)


def test_results_are_not_written_over_each_other():
    memory = np.zeros(10)
    sliding = np.lib.stride_tricks.as_strided(memory, (4, 4), (8, 8))
    with pytest.raises(ci.ArgumentError, match="out: elements share memory"):
        ci.project_ball(np.ones((4, 4)), 9.0, out=sliding)
    assert not memory.any()
    apart = memory[::-2].reshape(5, 1)
    ci.project_ball(np.arange(5.0)[:, None], 9.0, out=apart)
    np.testing.assert_array_equal(memory, [0, 4, 0, 3, 0, 2, 0, 1, 0, 0])


@pytest.mark.parametrize("error", [MemoryError(), KeyboardInterrupt(), SystemExit(1)])
def test_what_is_no_refusal_goes_through(error):
    class Array:
        def __array__(self, *args, **kwargs):
            raise error

    class Producer:
        shape = (2,)

        def __dlpack_device__(self):
            return (1, 0)

        def __dlpack__(self, **kwargs):
            raise error

    class Lookup:
        def __getattr__(self, name):
            raise error

    for x in (Array(), Producer(), Lookup(), [Array()]):
        with pytest.raises(type(error)):
            _core.as_float64(x)
    with pytest.raises(type(error)):
        ci.set_nll([[0.0, 1.0]], Array())


def test_other_errors_of_producers_become_refusals():
    class Producer:
        def __dlpack_device__(self):
            return (1, 0)

        def __dlpack__(self, **kwargs):
            raise BufferError("no\nway")

    with pytest.raises(
        ci.ArgumentError, match=r"array: .*BufferError: 'no\\nway'"
    ) as e:
        _core.as_float64(Producer())
    assert isinstance(e.value.__cause__, BufferError)


def test_flags_of_what_was_read_stay():
    class Array:
        def __init__(self):
            self.x = np.ones(3)

        def __array__(self, *args, **kwargs):
            return self.x

    array = Array()
    np.testing.assert_array_equal(_core.as_float64(array), 1.0)
    assert array.x.flags.writeable


def test_ctypes_arrays():
    x = (ctypes.c_double * 3 * 2)((1, 2, 3), (4, 5, 6))
    np.testing.assert_array_equal(_core.as_float64(x), [[1, 2, 3], [4, 5, 6]])
    assert ci.project_ball(x, np.inf, out=x) is x


def test_numbers_in_arguments_that_are_not_samples():
    x = np.full((2, 4), 3.0)
    for radius in (1, np.int64(1), [1, 1], torch.tensor(1), torch.tensor([1.0, 1.0])):
        np.testing.assert_allclose(ci.project_ball(x, radius), 0.5)
    half = torch.tensor([1.0, 1.0], dtype=torch.bfloat16)
    np.testing.assert_allclose(ci.project_ball(x, half), 0.5)
    for radius in ("1", ["1", "1"], np.ma.array([1.0, 1.0]), object(), None):
        with pytest.raises(ci.DtypeError, match="radius: "):
            ci.project_ball(x, radius)


@pytest.mark.parametrize(
    "token_ids",
    [
        ["0"],
        [[0], ["1"]],
        [0, [1]],
        [[0], [[1]]],
        np.ma.array([0, 1], mask=[0, 1]),
        [np.ma.array([0]), [1]],
        np.array([0.0]),
        np.array(["2020"], dtype="M8[D]"),
        np.array([0], dtype=object),
        torch.tensor([0]).to_sparse(),
        torch.zeros(1, dtype=torch.int64, device="meta"),
        None,
    ],
    ids=lambda x: type(x).__name__,
)
def test_token_ids_that_are_none(token_ids):
    with pytest.raises(ci.CinterveneError, match="token_ids: "):
        ci.set_nll(np.zeros((2, 3)), token_ids)


def test_finding_numbers_that_are_not_finite_needs_no_memory():
    x = np.zeros((70_000, 2), dtype=np.float32)
    x[65_000, 1] = np.nan
    x[69_000, 0] = np.inf
    with pytest.raises(ci.NonFiniteError, match="x: not finite at row 65000, column 1"):
        _core.check_finite(x, "x")


def test_options_that_are_no_numbers():
    problem = np.eye(2), np.zeros((2, 3)), np.ones((1, 3)), 2.0
    for options in (
        {"slack": "1"},
        {"tolerance": "1"},
        {"max_iterations": "1"},
        {"halfspaces": 1.0},
    ):
        with pytest.raises(ci.ArgumentError, match=next(iter(options))):
            ci.pcr(*problem, **options)
    with pytest.raises(ci.ArgumentError, match="entropy: "):
        ci.project_simplex([1.0, 2.0], entropy="1")
    with pytest.raises(ci.ArgumentError, match="radius: "):
        ci.tsr(np.eye(2), np.zeros((2, 3)), [0], "1")
    with pytest.raises(TypeError):
        ci.LowRankUpdate([[1.0]], [[1.0]]) * "2"
