# SPDX-License-Identifier: Apache-2.0
"""The number of threads changes no bit of any result.

OpenMP fixes its number of threads when it starts, so eight are asked for in a new
process, which reports a digest of all results for each limit below that.
"""

import os
import subprocess
import sys

import pytest

import cintervene as ci

SCRIPT = """
import hashlib
import numpy as np
import cintervene as ci

rng = np.random.default_rng(0)
logits = (rng.normal(size=(37, 20011)) * 5).astype(np.float32)
weights = rng.normal(size=(301, 1777)).astype(np.float32)
update = ci.LowRankUpdate(rng.normal(size=(301, 19)), rng.normal(size=(19, 1777)))
inputs = rng.normal(size=(23, 1777))

prompts = rng.normal(size=(300, 500))
outputs = rng.normal(size=(300, 40))
directions = rng.normal(size=(90, 40))
offsets = np.where(rng.random((300, 90)) < 0.05, -1.0, np.inf)
preserve = ci.Preserve(rng.normal(size=(400, 500)))

def solved():
    solution = ci.pcr(
        prompts, outputs, None, 0.0, preserve=preserve, slack=1.0,
        halfspaces=(directions, offsets),
    )
    assert solution.certified and np.count_nonzero(solution.multipliers) > 500
    return solution.multipliers, solution.displacements, solution.update.left

def moved_away(m):
    moving = np.random.default_rng(m)
    outputs = moving.normal(size=(m, 3000))
    concepts = 0.7 * moving.normal(size=(60, 3000))
    concepts += 0.8 * outputs[moving.integers(0, m, 60)]
    solution = ci.pcr(prompts[:m], outputs, concepts, 70.0)
    assert solution.certified and np.count_nonzero(solution.multipliers) > 20
    return solution.multipliers, solution.displacements, solution.update.left

def results():
    yield from ci.set_nll(logits, [1, 2, 3], grad=True)
    yield ci.project_simplex(logits)
    yield ci.project_ball(logits, 2.0)
    yield update.apply(weights, out=np.empty_like(weights))
    yield update.apply(weights.astype(np.float16))
    yield from solved()
    yield from moved_away(1)
    yield from moved_away(6)
    yield ci.displacement(weights, weights + np.float32(0.5), inputs)
    yield ci.project_simplex(logits, entropy=0.9)
    for solve in (ci.tsr, ci.arr):
        solution = solve(logits[:23, :60], logits[:23], [3], 9.0, max_iterations=4)
        yield from (solution.update.left, solution.losses)
    pg = ci.ProjectedGradient(logits[:, :60], 1.0, momentum=True)
    yield from (pg.step(logits), pg.step(logits[::-1]))

for limit in (1, 2, 3, 8):
    with ci.thread_limit(limit):
        digest = hashlib.sha256()
        for array in results():
            digest.update(np.ascontiguousarray(array).tobytes())
        print(ci.show_config()["threads"], digest.hexdigest())
"""


def test_same_bits_for_any_number_of_threads(kernels):
    environment = {**os.environ, "OMP_NUM_THREADS": "8", "CINTERVENE_CPU": kernels}
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    lines = [line.split() for line in run.stdout.splitlines()]
    assert [int(threads) for threads, _ in lines] == [1, 2, 3, 8]
    assert len({digest for _, digest in lines}) == 1


def test_thread_limit_is_undone():
    before = ci.show_config()["threads"]
    with ci.thread_limit(1):
        assert ci.show_config()["threads"] == 1
        with (
            pytest.raises(ci.ArgumentError, match="limit: got -1"),
            ci.thread_limit(-1),
        ):
            pass
        for limit in (1.5, 4097, 1 << 70, None):
            with (
                pytest.raises(ci.ArgumentError, match=f"limit: got {limit}"),
                ci.thread_limit(limit),
            ):
                pass
        assert ci.show_config()["threads"] == 1
    assert ci.show_config()["threads"] == before
