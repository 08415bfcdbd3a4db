# SPDX-License-Identifier: Apache-2.0
"""The C sources as setup.py builds them: linked with the tests of the core, and as a
package in which allocations can be made to fail."""

import fcntl
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent.parent
SANITIZERS = ["-fsanitize=address,undefined", "-fno-omit-frame-pointer"]
# The linker sends the sources' allocations through a function that can fail.
WRAPPED = ["-Wl,--wrap=malloc"]


@dataclass(frozen=True)
class Cross:
    """What it takes to build for another machine."""

    compiler: str
    openblas: Path  # its scipy_openblas32, unpacked


@dataclass(frozen=True)
class Build:
    """Object files of one build, and how to add to them."""

    directory: Path
    sanitized: bool
    cross: Cross | None = None

    def openblas(self) -> Path:
        """The scipy_openblas32 that the build links with."""
        if self.cross is not None:
            return self.cross.openblas
        return Path(pytest.importorskip("scipy_openblas32").__file__).parent

    def objects(self, part: str) -> list[str]:
        """Object files below csrc/`part`."""
        found = sorted((self.directory / "objects/csrc" / part).rglob("*.o"))
        assert found, part
        return [str(path) for path in found]

    def link(self, target: Path, sources: list[Path], *flags: str) -> Path:
        """Compile the sources and link them with the core into `target`."""
        directory = self.openblas() / "lib"
        includes = ["csrc", "csrc/include", "csrc/core", "tests/c", np.get_include()]
        includes.append(sysconfig.get_paths()["include"])
        command = [self.cross.compiler if self.cross else "gcc", "-std=c11", "-O1"]
        command += ["-g", "-Wall", "-Wextra", "-Werror"]
        command += ["-fopenmp", *(SANITIZERS if self.sanitized else []), *WRAPPED]
        command += [f"-I{path}" for path in includes]
        command += [*map(str, sources), *self.objects("core"), *flags]
        command += [f"-L{directory}", "-lscipy_openblas", "-lm"]
        command += [f"-Wl,-rpath,{directory}", "-o", str(target)]
        _run(command)
        return target

    def core_tests(self) -> Path:
        """The program of tests/c."""
        target = self.directory / "tests"
        sources = sorted((ROOT / "tests/c").rglob("*.c"))
        once(target, lambda: self.link(target, sources))
        return target

    def package(self) -> Path:
        """A directory to put before sys.path: the package with this build inside."""
        target = self.directory / "site"
        once(target, lambda: self._link_package(target / "cintervene"))
        return target

    def _link_package(self, target: Path) -> None:
        _copy_package(target)
        name = "_core" + sysconfig.get_config_var("EXT_SUFFIX")
        faults = [ROOT / "tests/support/fuzz/faults.c"]
        binding = self.objects("python")
        self.link(target / name, faults, *binding, "-shared", "-fPIC")

    def run(self, script: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run a script of tests/support/fuzz on that package."""
        command = [
            sys.executable,
            str(ROOT / "tests/support/fuzz" / script),
            *arguments,
        ]
        return subprocess.run(
            command, env=self.environment(), capture_output=True, text=True, check=False
        )

    def environment(self) -> dict[str, str]:
        """Variables under which Python imports that package."""
        path = [str(self.package()), str(ROOT / "tests")]
        result = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
        result |= {"PYTHONMALLOC": "malloc", "OMP_NUM_THREADS": "2"}
        if self.sanitized:
            names = ("libasan.so", "libubsan.so")
            found = [
                _run(["gcc", f"-print-file-name={name}"]).strip() for name in names
            ]
            result |= {
                "LD_PRELOAD": " ".join(found),
                "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
                "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
            }
        return result


def build(directory: Path, *, sanitized: bool, cross: Cross | None = None) -> Build:
    """Build the extension as setup.py does, keeping its object files."""
    if cross is None and shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    once(directory, lambda: _build(directory, sanitized, cross))
    return Build(directory, sanitized, cross)


def once(target: Path, make: Callable[[], object]) -> None:
    """Make a file or directory, unless another process of this run has made it."""
    done = target.with_name(f"{target.name}.done")
    with target.with_name(f"{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            make()
            done.touch()


def _build(directory: Path, sanitized: bool, cross: Cross | None) -> None:
    switches = ("DEBUG", "SANITIZE") if sanitized else ()
    environment = {**os.environ, "CINTERVENE_WERROR": "1"}
    environment |= {f"CINTERVENE_{name}": "1" for name in switches}
    if cross is not None:
        environment["CC"] = cross.compiler
        environment["CINTERVENE_OPENBLAS"] = str(cross.openblas)
    command = [sys.executable, "setup.py", "-q", "build_ext"]
    command += [f"--build-temp={directory}/objects", f"--build-lib={directory}/built"]
    _run(command, cwd=ROOT, env=environment)


def _copy_package(target: Path) -> None:
    target.mkdir(parents=True)
    for path in (ROOT / "cintervene").iterdir():
        if not path.name.startswith("_core.") or path.suffix == ".pyi":
            (target / path.name).symlink_to(path)


def _run(command: list[str], **options: object) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, **options
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
