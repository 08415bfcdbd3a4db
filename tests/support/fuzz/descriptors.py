# SPDX-License-Identifier: Apache-2.0
"""Arrays of random axes and strides, read and written, against NumPy's own copies.

Run by tests/core/test_fuzz.py under the sanitizers: the memory of each array is as long
as its elements reach, so that one too far is noticed. Prints the counts.
"""

import json
import sys

import ml_dtypes
import numpy as np
from support.fuzz.producers import Producer

import cintervene as ci
from cintervene import _core

DTYPES = [np.dtype(t) for t in (np.float32, np.float64, np.float16, ml_dtypes.bfloat16)]
KINDS = ("dense", "zero", "negative", "gap", "odd")


def axis_stride(rng, kind, dense, item):
    if kind == "zero":
        return 0
    if kind == "odd":
        return int(rng.integers(-3 * item, 3 * item + 1))
    return {"dense": dense, "negative": -dense, "gap": dense + 2 * item}[kind]


def strides_of(rng, shape, item):
    """Strides of axes in random order, each of a random kind."""
    strides, dense = [0] * len(shape), item
    for axis in rng.permutation(len(shape)):
        strides[axis] = axis_stride(rng, rng.choice(KINDS), dense, item)
        dense = max(abs(strides[axis]), item) * max(shape[axis], 1)
    return strides


def make(rng, number):
    """A view, and the bytes that it lies in: as many as it needs."""
    dtype = DTYPES[number % len(DTYPES)]
    ndim = 1 + number % 5
    shape = [int(n) for n in rng.integers(0 if rng.random() < 0.1 else 1, 6, size=ndim)]
    strides = strides_of(rng, shape, dtype.itemsize)
    spans = [(n - 1) * s for n, s in zip(shape, strides, strict=True)]
    before = -sum(span for span in spans if span < 0) if 0 not in shape else 0
    behind = sum(span for span in spans if span > 0) if 0 not in shape else 0
    size = before + behind + dtype.itemsize
    values = rng.normal(size=size // dtype.itemsize + 1).astype(dtype)
    memory = values.view(np.uint8)[:size].copy()
    return np.ndarray(shape, dtype, memory, before, strides), memory


def overlaps(view):
    """Whether two elements share a byte."""
    offsets = np.zeros((1,), dtype=np.int64)
    for length, stride in zip(view.shape, view.strides, strict=True):
        offsets = (offsets[:, None] + np.arange(length) * stride).reshape(-1)
    return bool(np.any(np.diff(np.sort(offsets)) < view.itemsize))


def sources(view):
    """The view as each kind of source can express it."""
    yield "numpy", view
    if all(stride % view.itemsize == 0 for stride in view.strides):
        yield "dlpack", Producer(view)
    if view.dtype != DTYPES[3]:
        yield "buffer", memoryview(view)


def check_read(view, counts):
    expected = np.array(view).astype(np.float64)
    for name, source in sources(view):
        got = _core.as_float64(source)
        counts["wrong"] += not np.array_equal(got, expected, equal_nan=True)
        counts[name] += 1


def check_write(rng, view, memory, counts):
    """A result goes to the elements and nowhere else, or is refused."""
    wanted = rng.normal(size=view.shape).astype(view.dtype)
    expected = memory.copy()
    own = np.ndarray(
        view.shape,
        view.dtype,
        expected,
        view.__array_interface__["data"][0] - memory.ctypes.data,
        view.strides,
    )
    own[...] = wanted
    before = memory.copy()
    try:
        ci.project_ball(wanted, np.inf, out=view)
    except ci.ArgumentError:
        counts["refused"] += 1
        counts["cautious"] += not overlaps(view)
        counts["mutated"] += not np.array_equal(before, memory)
        return
    counts["written"] += 1
    counts["wrong"] += overlaps(view) or not np.array_equal(memory, expected)


def main(count):
    np.seterr(invalid="ignore")  # odd strides make signalling NaN
    rng = np.random.default_rng(0)
    names = ("numpy", "dlpack", "buffer", "written", "refused", "cautious")
    names += ("wrong", "mutated")
    counts = dict.fromkeys(names, 0)
    for number in range(count):
        view, memory = make(rng, number)
        check_read(view, counts)
        check_write(rng, view, memory, counts)
    print(json.dumps({"descriptors": count, **counts}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
