# SPDX-License-Identifier: Apache-2.0
"""Capsules with every field right and wrong, as each array of each function.

Run by tests/core/test_fuzz.py under the sanitizers. A capsule that is right gives what
the NumPy array gives; any other is refused by an exception of the package, and its
deleter has been called once all the same. Prints the counts.
"""

import ctypes as c
import json

import numpy as np
from support.fuzz.entries import all_entries, results
from support.fuzz.producers import Producer

import cintervene as ci

INT64 = c.POINTER(c.c_int64)
LARGEST, LEAST = 2**63 - 1, -(2**63)


def field(**values):
    """Change fields of the tensor."""

    def change(managed):
        for name, value in values.items():
            setattr(managed.tensor, name, value)

    return change


def outer(**values):
    """Change fields around the tensor."""

    def change(managed):
        for name, value in values.items():
            setattr(managed, name, value)

    return change


def lengths(*values):
    """A shape that no memory has."""

    def change(managed):
        ndim = managed.tensor.ndim
        if ndim == 1:
            managed.tensor.shape[0] = min(values) if min(values) < 0 else LARGEST
            return
        for axis, value in enumerate(values):
            managed.tensor.shape[axis] = value

    return change


def steps(*values):
    def change(managed):
        for axis, value in enumerate(values[: managed.tensor.ndim]):
            managed.tensor.strides[axis] = value

    return change


def offset(managed):
    """The same elements, counted from an earlier address."""
    managed.tensor.data -= 64
    managed.tensor.byte_offset = 64


RIGHT = {
    "as it is": None,
    "no strides": field(strides=INT64()),
    "offset": offset,
    "no deleter": outer(deleter=None),
    "pinned memory": field(device_type=3),
    "some device number": field(device_id=7),
}

WRONG = {
    "no data": field(data=None),
    "no data but an offset": field(data=None, byte_offset=64),
    "no shape": field(shape=INT64()),
    "no shape, no strides": field(shape=INT64(), strides=INT64()),
    "-1 axes": field(ndim=-1),
    "least axes": field(ndim=-(2**31)),
    "17 axes": field(ndim=17),
    "most axes": field(ndim=2**31 - 1),
    "negative axis": lengths(-1, -1),
    "least axis": lengths(LEAST, LEAST),
    "longest axis": lengths(LARGEST, 1),
    "product overflows": lengths(2**31, 2**31),
    "product wraps to 0": lengths(2**32, 2**32),
    "bytes overflow": lengths(2**31, 2**30),
    "zero beside longest": lengths(0, LARGEST),
    "longest strides": steps(LARGEST, LARGEST),
    "least strides": steps(LEAST, LEAST),
    "far strides": steps(2**58, 2**58),
    "far back": steps(-(2**58), -(2**58)),
    "offset wraps": field(byte_offset=2**64 - 1),
    "offset far": field(byte_offset=2**63),
    "cuda": field(device_type=2),
    "no device": field(device_type=0),
    "negative device": field(device_type=-1),
    "managed memory": field(device_type=13),
    "int": field(code=0),
    "uint": field(code=1),
    "handle": field(code=3),
    "bfloat32": field(code=4, bits=32),
    "complex": field(code=5),
    "bool": field(code=6, bits=8),
    "float8": field(code=7, bits=8),
    "unknown code": field(code=255),
    "0 bits": field(bits=0),
    "8 bits": field(bits=8),
    "128 bits": field(bits=128),
    "255 bits": field(bits=255),
    "0 lanes": field(lanes=0),
    "2 lanes": field(lanes=2),
    "65535 lanes": field(lanes=65535),
}

VERSIONED_RIGHT = {
    "minor version": outer(minor=99),
    "unknown flags": outer(flags=2**64 - 4),
}

VERSIONED_WRONG = {
    "version 0": outer(major=0),
    "version 2": outer(major=2),
    "last version": outer(major=2**32 - 1),
}

# Fine to read, not to write.
UNWRITABLE = {
    "read-only": outer(flags=1),
    "copied": outer(flags=2),
    "both": outer(flags=3),
}

# A scalar to some, to others not an array.
EITHER = {
    "no axes": field(ndim=0),
    "empty": field(ndim=1, data=None, shape=INT64(c.c_int64(0))),
}

NAMES = {
    "another name": b"tensor",
    "no name": None,
    "used": b"used_dltensor",
    "used, versioned": b"used_dltensor_versioned",
}

DEVICES = {
    "device as number": 1,
    "device as list": [1, 0],
    "device too long": (1, 0, 0),
    "device as text": ("cpu", "0"),
    "huge device": (2**40, 0),
    "no device": None,
    "on an accelerator": (2, 0),
}


def kinds():
    """(name, how to make a producer, whether it can be read, and written)."""
    for versioned in (False, True):
        more = VERSIONED_RIGHT if versioned else {}
        for name, change in {**RIGHT, **more}.items():
            yield name, {"versioned": versioned, "change": change}, True, versioned
        more = VERSIONED_WRONG if versioned else {}
        for name, change in {**WRONG, **more}.items():
            yield name, {"versioned": versioned, "change": change}, False, False
    for name, change in EITHER.items():
        yield name, {"change": change}, None, None
    for name, change in UNWRITABLE.items():
        yield name, {"change": change}, True, False
    for name, capsule in NAMES.items():
        yield name, {"name": capsule}, False, False
    for name, device in DEVICES.items():
        yield name, {"device": device}, False, False


def check(entry, place, kind, counts):
    """Call the entry with one of its arrays as that kind of capsule."""
    name, options, readable, writable = kind
    arrays = entry.fresh()
    expected = results(entry.call(*arrays))
    after = arrays
    arrays = entry.fresh()
    producer = Producer(arrays[place], **options)
    given = [producer if i == place else x for i, x in enumerate(arrays)]
    right = writable if place in entry.written else readable
    problem = ""
    try:
        found = results(entry.call(*given))
    except ci.CinterveneError:
        counts["refused"] += 1
        problem = "refused" if right else ""
    except BaseException as error:
        problem = repr(error)
    else:
        counts["right"] += 1
        same = len(found) == len(expected) and all(
            np.array_equal(x, y, equal_nan=True)
            for x, y in zip(found, expected, strict=True)
        )
        same = same and all(map(np.array_equal, arrays, after))
        problem = "" if right and same else "wrong" if right else "not refused"
        problem = "" if right is None else problem
    taken = options.get("name", "usual") == "usual"
    if producer.deleted != (producer.made if taken else 0):
        problem += f" deleted {producer.deleted} of {producer.made}"
    mutated = [
        i
        for i, (x, y) in enumerate(zip(arrays, entry.arrays, strict=True))
        if i not in entry.written and not np.array_equal(x, y)
    ]
    if problem or mutated:
        counts["problems"].append([entry.name, place, name, problem, mutated])


def main():
    counts = {"right": 0, "refused": 0, "problems": []}
    found = list(kinds())
    calls = 0
    for entry in all_entries():
        for place in entry.places:
            for kind in found:
                check(entry, place, kind, counts)
                calls += 1
    print(json.dumps({"calls": calls, "kinds": len(found), **counts}))


if __name__ == "__main__":
    main()
