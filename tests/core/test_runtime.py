# SPDX-License-Identifier: Apache-2.0
"""The library as a guest in a process: forks, signals, other OpenMP users."""

import os
import subprocess
import sys

import pytest


def run(script, **environment):
    """Run Python code in a new process; its standard output, stripped."""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_import_brings_no_heavy_package():
    heavy = ["torch", "transformers", "safetensors", "matplotlib", "scipy", "ml_dtypes"]
    script = f"""
import sys
import numpy as np
import cintervene as ci
ci.set_nll(np.zeros((2, 3)), [1], grad=True)
ci.LowRankUpdate(np.ones((2, 1)), np.ones((1, 3))).apply(np.zeros((2, 3)))
print([name for name in {heavy} if name in sys.modules])
"""
    assert run(script) == "[]"


def test_calls_work_after_fork():
    """A child of a process whose OpenMP threads have run must not hang."""
    script = """
import multiprocessing
import numpy as np
import cintervene as ci

x = np.random.default_rng(0).normal(size=(64, 20000)).astype(np.float32)

def work():
    return ci.project_simplex(x).sum(), ci.show_config()["threads"]

def child(pipe):
    pipe.send(work())

if __name__ == "__main__":
    expected, threads = work()
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    process = context.Process(target=child, args=(there,))
    process.start()
    assert here.poll(300), "child hangs"
    got, child_threads = here.recv()
    process.join()
    assert got == expected and child_threads == 1
    assert work() == (expected, threads)
"""
    run(script, OMP_NUM_THREADS="4")


@pytest.mark.parametrize("order", ["torch, cintervene", "cintervene, torch"])
def test_one_openmp_runtime_with_torch(order):
    pytest.importorskip("torch")
    script = f"""
import os, re
import {order}
import numpy as np
x = np.random.default_rng(0).normal(size=(64, 20000)).astype(np.float32)
torch.from_numpy(x) @ torch.from_numpy(x).T
cintervene.project_simplex(x)
torch.set_num_threads(1)
maps = open("/proc/self/maps").read()
print(len({{os.path.realpath(p) for p in re.findall(r"/\\S*libgomp\\S*", maps)}}))
print(cintervene.show_config()["threads"])
"""
    assert run(script).split() == ["1", "1"]


def test_import_leaves_floating_point_alone():
    script = """
import numpy as np
before = np.float64(5e-324) / 1
import cintervene
print(before == np.float64(5e-324) * 1 != 0, np.float32(1e-45) * np.float32(1) != 0)
"""
    assert run(script) == "True True"


def test_kernels_from_environment(kernels):
    script = "import cintervene; print(cintervene.show_config()['cpu'])"
    assert run(script, CINTERVENE_CPU=kernels) == kernels


def test_unknown_kernels_in_environment():
    script = """
try:
    import cintervene
except ValueError as error:
    print(error)
"""
    message = run(script, CINTERVENE_CPU="mmx")
    assert "CINTERVENE_CPU" in message
    assert "baseline" in message


INTERRUPTED = """
import signal
import numpy as np
import cintervene as ci

weights = np.zeros((3000, 3000), dtype=np.float32)
update = ci.LowRankUpdate(np.ones((3000, 3000), np.float32), np.eye(3000, dtype="f4"))
# Time of this process, so that others may have the processor before the call begins.
signal.signal(signal.SIGVTALRM, signal.default_int_handler)
signal.setitimer(signal.ITIMER_VIRTUAL, 0.2)
try:
    update.apply(weights)
except KeyboardInterrupt:
    print("within the call" if (weights[-1] == 0).all() else "after the call")
else:
    print("not at all")
"""


def test_interrupt_stops_a_long_call():
    """Ctrl-C ends a call of some seconds before it has reached the last row."""
    said = run(INTERRUPTED, OMP_NUM_THREADS="1", CINTERVENE_CPU="baseline")
    assert said == "within the call"


def test_other_python_threads_run_during_a_call():
    script = """
import threading, time
import numpy as np
import cintervene as ci

update = ci.LowRankUpdate(np.ones((2000, 2000), np.float32), np.eye(2000, dtype="f4"))
done = threading.Event()
ticks = []

def tick():
    while not done.is_set():
        ticks.append(time.monotonic())
        time.sleep(0.001)

thread = threading.Thread(target=tick)
thread.start()
start = time.monotonic()
update.apply(np.zeros((2000, 2000), dtype=np.float32))
end = time.monotonic()
done.set()
thread.join()
print(sum(start < t < end for t in ticks))
"""
    assert int(run(script, OMP_NUM_THREADS="1", CINTERVENE_CPU="baseline")) > 2


def test_concurrent_calls_agree():
    script = """
from concurrent.futures import ThreadPoolExecutor
import numpy as np
import cintervene as ci

x = np.random.default_rng(0).normal(size=(16, 5000)).astype(np.float32)
expected = ci.project_simplex(x)
with ThreadPoolExecutor(4) as pool:
    results = list(pool.map(lambda _: ci.project_simplex(x), range(40)))
print(all(np.array_equal(r, expected) for r in results))
"""
    assert run(script) == "True"


def test_memory_of_earlier_calls_does_not_show():
    """Blocks are reused once nobody holds them, and by one call at a time."""
    script = """
from concurrent.futures import ThreadPoolExecutor
import numpy as np
import cintervene as ci

def problem(seed, m, n, d):
    rng = np.random.default_rng(seed)
    concepts = rng.normal(size=(n, d))
    outputs = concepts[rng.integers(0, n, m)] + 0.1 * rng.normal(size=(m, d))
    return rng.normal(size=(m, 2 * d)), outputs, concepts, 1.0

PROBLEMS = [problem(s, m, n, d) for s, (m, n, d) in enumerate(
    [(12, 30, 1100), (30, 10, 600), (1, 100, 2000), (12, 30, 1100)]
)]

def solve(index):
    with ci.thread_limit(1):
        solution = ci.pcr(*PROBLEMS[index % 4])
    assert solution.certified
    return solution.multipliers, solution.displacements, solution.update.left

first = [solve(i) for i in range(4)]
copies = [[array.copy() for array in arrays] for arrays in first]
views = [arrays[1][:, 3:5] for arrays in first[:2]]
del first[:2]
with ThreadPoolExecutor(3) as pool:
    again = list(pool.map(solve, range(24)))
for index, arrays in enumerate(again):
    for array, copy in zip(arrays, copies[index % 4]):
        assert array.tobytes() == copy.tobytes()
for kept, copy in zip(first, copies[2:]):
    assert all(a.tobytes() == b.tobytes() for a, b in zip(kept, copy))
for view, arrays in zip(views, copies):
    assert np.array_equal(view, arrays[1][:, 3:5])
print("same")
"""
    assert run(script) == "same"
