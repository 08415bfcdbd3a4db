# SPDX-License-Identifier: Apache-2.0
"""Builds the C core without Python, with sanitizers, and runs its own tests."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLAGS = ["-std=c11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-fopenmp"]
FLAGS += ["-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"]
FLAGS += ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
FLAGS += ["-fno-omit-frame-pointer", "-Wno-unknown-pragmas"]
# Poisoning memory that nobody has written yet is what the arena is for.
FLAGS += ["-Wno-maybe-uninitialized"]


@pytest.fixture(scope="module")
def binary(tmp_path_factory):
    compiler = shutil.which("gcc")
    openblas = pytest.importorskip("scipy_openblas32")
    if compiler is None:
        pytest.skip("needs gcc")
    directory = openblas.get_lib_dir()
    target = tmp_path_factory.mktemp("core") / "tests"
    sources = [*(ROOT / "csrc/core").rglob("*.c"), *(ROOT / "tests/c").rglob("*.c")]
    includes = [ROOT / "csrc/include", ROOT / "csrc/core", ROOT / "tests/c"]
    includes.append(openblas.get_include_dir())
    command = [compiler, *FLAGS, "-DCIV_LAPACK_SCIPY"]
    command += [f"-I{path}" for path in includes]
    command += [*map(str, sources), "-o", str(target), f"-L{directory}"]
    command += [f"-l{openblas.get_library()}", f"-Wl,-rpath,{directory}", "-lm"]
    command += ["-Wl,--wrap=malloc"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


@pytest.mark.parametrize("threads", [1, 4])
def test_core_alone(binary, threads):
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "ASAN_OPTIONS": "detect_leaks=1",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }
    done = subprocess.run(
        [binary], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 failed" in done.stdout
    assert int(done.stdout.split()[0]) > 100
