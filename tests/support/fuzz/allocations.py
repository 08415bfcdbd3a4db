# SPDX-License-Identifier: Apache-2.0
"""Every call with each allocation in the extension failed once, whoever makes it.

Run by tests/core/test_fuzz.py on a package that is linked with faults.c. A call raises
MemoryError or an exception of the package, or gives what it gives otherwise; inputs
stay as they were, and each deleter is called once. Prints the counts.
"""

import ctypes as c
import json
import traceback
from functools import partial
from types import BuiltinFunctionType

import numpy as np
from support.fuzz.entries import all_entries, results
from support.fuzz.producers import Producer

import cintervene as ci
from cintervene import _core
from cintervene.solvers import pcr

_faults = c.PyDLL(_core.__file__)
_call = _faults.faults_call
_call.restype, _call.argtypes = c.py_object, [c.py_object, c.py_object]
_faults.faults_made.restype = c.c_long
_faults.faults_start.argtypes = [c.c_long]

ALLOWED = (MemoryError, ci.CinterveneError)


def hook_extension():
    """Have each function of the extension called where allocations are counted."""
    assert _faults.faults_install() == 0
    hooked = {}
    for name, function in vars(_core).items():
        if isinstance(function, BuiltinFunctionType):
            hooked[name] = partial(lambda f, *arguments: _call(f, arguments), function)
    vars(_core).update(hooked)
    pcr.METHODS.update(exact=_core.pcr_exact, most_violated=_core.pcr_most_violated)


def same(found, expected):
    return len(found) == len(expected) and all(
        np.array_equal(x, y, equal_nan=True)
        for x, y in zip(found, expected, strict=True)
    )


def attempt(entry, wrapped, count, expected, counts):
    """One call whose allocation number `count` fails; whether there was such a one."""
    arrays = entry.fresh()
    producers = [Producer(x) for x in arrays] if wrapped else []
    given = producers or arrays
    problem = ""
    try:
        _faults.faults_start(count)
        found = entry.call(*given)
    except ALLOWED as error:
        counts[type(error).__name__] = counts.get(type(error).__name__, 0) + 1
    except BaseException as error:
        problem = "".join(traceback.format_exception(error)[-4:])
    else:
        counts["right"] += 1
        problem = "" if same(results(found), expected) else "wrong"
    reached = _faults.faults_made() > count
    mutated = [
        i
        for i, (x, y) in enumerate(zip(arrays, entry.arrays, strict=True))
        if i not in entry.written and not np.array_equal(x, y)
    ]
    deleted = [p.deleted != p.made for p in producers]
    if problem or mutated or any(deleted):
        counts["problems"].append([entry.name, count, problem, mutated, deleted])
    return reached


def main():
    hook_extension()
    counts = {"right": 0, "problems": []}
    points = 0
    for entry in all_entries():
        _faults.faults_start(-1)
        expected = results(entry.call(*entry.fresh()))
        for wrapped in (False, True):
            if wrapped and entry.copied:
                continue
            attempt(entry, wrapped, -1, expected, counts)
            count = 0
            while attempt(entry, wrapped, count, expected, counts):
                count += 1
            points += count
    print(json.dumps({"points": points, **counts}))


if __name__ == "__main__":
    main()
