# SPDX-License-Identifier: Apache-2.0
"""A process that forks while another thread computes: the child can compute too.

What hangs there is a lock that a thread held which does not exist in the child.
"""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import os, signal, sys, threading, time
import numpy as np
import cintervene as ci

rng = np.random.default_rng(0)
inputs, outputs = rng.normal(size=(40, 60)), rng.normal(size=(40, 30))
concepts = outputs[:5] + 0.1
logits = rng.normal(size=(64, 400)).astype(np.float32)
benign = rng.normal(size=(200, 60))
preserve = ci.Preserve(benign)
update = ci.LowRankUpdate(rng.normal(size=(300, 8)), rng.normal(size=(8, 300)))
weights = np.zeros((300, 300), np.float32)
solution = ci.pcr(inputs, outputs, concepts, 1.0)

entries = {
    "pcr": lambda: ci.pcr(inputs, outputs, concepts, 1.0),
    "certify": lambda: ci.certify(solution, inputs, outputs, concepts, 1.0),
    "tsr": lambda: ci.tsr(inputs, logits[:40, :60], [3], 1.0, max_iterations=2),
    "arr": lambda: ci.arr(inputs, logits[:40, :60], [3], 1.0, max_iterations=2),
    "Preserve": lambda: ci.Preserve(benign).solve(inputs),
    "BenignMoments": lambda: ci.BenignMoments(60).add(benign).preserve().solve(inputs),
    "ProjectedGradient": lambda: ci.ProjectedGradient(inputs, 1.0).step(outputs),
    "set_nll": lambda: ci.set_nll(logits, [1, 2], grad=True),
    "project_simplex": lambda: ci.project_simplex(logits),
    "apply": lambda: update.apply(weights, out=np.empty_like(weights)),
    "compress": lambda: update.compress(4),
}

def forks(entry, number):
    stop = threading.Event()
    def compute():
        while not stop.is_set():
            entry()
    thread = threading.Thread(target=compute)
    thread.start()
    hung = 0
    for i in range(number):
        time.sleep(0.0001 * (7 * i % 29))
        child = os.fork()
        if child == 0:
            signal.alarm(300)
            entry()
            preserve.with_ridge().solve(inputs)
            os._exit(0)
        hung += os.waitpid(child, 0)[1] != 0
    stop.set()
    thread.join()
    return hung

for name, entry in entries.items():
    entry()
    print(name, forks(entry, int(sys.argv[1])), flush=True)
"""


@pytest.mark.parametrize("threads", ["1", "2"])
def test_no_child_hangs(threads, cases, counted):
    number = cases(150, 1000)
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(number)],
        env={**os.environ, "OMP_NUM_THREADS": threads},
        capture_output=True,
        text=True,
        timeout=6000,
    )
    assert run.returncode == 0, run.stderr
    hung = dict(line.split() for line in run.stdout.splitlines())
    assert len(hung) == 11
    assert set(hung.values()) == {"0"}, hung
    counted("forks while a thread was in one of eleven entries", number * len(hung))
