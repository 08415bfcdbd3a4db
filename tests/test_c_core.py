# SPDX-License-Identifier: Apache-2.0
"""The core's own tests, without Python: with the sanitizers, with the flags of the
package, and under valgrind with these."""

import os
import shutil
import subprocess

import pytest


def run_tests(command, **variables):
    environment = {**os.environ, **variables}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 failed" in done.stdout
    return int(done.stdout.split()[0])


@pytest.mark.parametrize("threads", ["1", "4"])
def test_with_sanitizers(sanitized_build, counted, threads):
    found = run_tests(
        [sanitized_build.core_tests()],
        OMP_NUM_THREADS=threads,
        ASAN_OPTIONS="detect_leaks=1",
        UBSAN_OPTIONS="halt_on_error=1:print_stacktrace=1",
    )
    counted("checks of the core with sanitizers", found)
    assert found > 20_000


@pytest.mark.parametrize("threads", ["1", "4"])
def test_as_shipped(shipped_build, counted, threads):
    found = run_tests([shipped_build.core_tests()], OMP_NUM_THREADS=threads)
    counted("checks of the core as it is shipped", found)
    assert found > 20_000


def test_as_shipped_under_valgrind(shipped_build, counted):
    if shutil.which("valgrind") is None:
        pytest.skip("needs valgrind: apt-get install valgrind")
    command = ["valgrind", "-q", "--error-exitcode=9", "--leak-check=full"]
    command += ["--errors-for-leak-kinds=definite", shipped_build.core_tests()]
    found = run_tests(command, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    counted("checks of the core under valgrind", found)
    assert found > 20_000
