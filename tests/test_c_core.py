# SPDX-License-Identifier: Apache-2.0
"""The core's own tests, without Python: with the sanitizers, with the flags of the
package, under valgrind with these, and emulated as on a 64-bit ARM processor."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.native import Cross, build


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


# Where .ci/aarch64 puts what the compiler does not bring.
AARCH64 = Path(sys.prefix) / "aarch64"
# An N1 as in Graviton 2 and Ampere Altra, whose OpenBLAS kernels the emulator can run.
EMULATED = ["qemu-aarch64-static", "-cpu", "neoverse-n1"]
EMULATED += ["-L", "/usr/aarch64-linux-gnu"]


@pytest.fixture(scope="module")
def aarch64_tests(tmp_path_factory):
    """The program of tests/c for aarch64, and how it is run here."""
    cross = Cross("aarch64-linux-gnu-gcc", AARCH64 / "scipy_openblas32")
    found = all(shutil.which(name) for name in (cross.compiler, EMULATED[0]))
    if not found or not cross.openblas.is_dir():
        pytest.skip("needs a cross compiler and an emulator: .ci/aarch64")
    directory = tmp_path_factory.mktemp("aarch64") / "build"
    made = build(directory, sanitized=False, cross=cross)
    return [*EMULATED, made.core_tests()]


@pytest.mark.parametrize(("kernels", "threads"), [("neon", "1"), ("baseline", "2")])
def test_as_shipped_on_aarch64(aarch64_tests, counted, kernels, threads):
    variables = {"CINTERVENE_CPU": kernels, "OPENBLAS_NUM_THREADS": "1"}
    found = run_tests(aarch64_tests, OMP_NUM_THREADS=threads, **variables)
    counted("checks of the core for aarch64", found)
    assert found > 15_000  # There are two tables of kernels, not three.
