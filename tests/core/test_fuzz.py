# SPDX-License-Identifier: Apache-2.0
"""The binding under the sanitizers: descriptors, capsules, allocations that fail.

The scripts are in tests/support/fuzz. One that reads a byte too many fails with the
report of the sanitizers.
"""

import json


def run(build, script, *arguments):
    done = build.run(script, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr[-20_000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_array_descriptors(sanitized_build, cases, counted):
    wanted = cases(30_000, 1_000_000)
    found = run(sanitized_build, "descriptors.py", str(wanted))
    counted("array descriptors", found["descriptors"])
    assert found["descriptors"] == wanted
    assert found["wrong"] == found["mutated"] == 0, found
    # The rare ones whose strides interleave without meeting are refused too.
    assert found["cautious"] <= 0.02 * wanted, found
    assert min(found["dlpack"], found["buffer"], found["written"]) > 0.4 * wanted


def test_capsules(sanitized_build, counted):
    found = run(sanitized_build, "capsules.py")
    counted("kinds of DLPack capsules", found["kinds"])
    counted("calls with DLPack capsules", found["calls"])
    assert found["kinds"] >= 100
    assert found["calls"] >= 7_000
    assert found["problems"] == []


def test_failing_allocations(sanitized_build, counted):
    found = run(sanitized_build, "allocations.py")
    counted("allocations that failed", found["points"])
    assert found["points"] >= 2_000
    assert found["problems"] == []
