# SPDX-License-Identifier: Apache-2.0
"""Build of the C core. Metadata is in pyproject.toml.

Environment switches:

CINTERVENE_LAPACK=system   link the distribution's LAPACKE and CBLAS instead of the
                           OpenBLAS of scipy-openblas32 that is copied into the package
CINTERVENE_OPENBLAS=DIR    the scipy_openblas32 of another machine, unpacked: one that
                           is imported loads its library, which runs there only
CINTERVENE_DEBUG=1         no optimisation, assertions on
CINTERVENE_SANITIZE=1      address and undefined-behaviour sanitizers
CINTERVENE_COVERAGE=1      gcov instrumentation
CINTERVENE_WERROR=1        warnings are errors
CINTERVENE_OPENMP=0        one thread; what macOS has unless it is 1
"""

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from glob import glob
from pathlib import Path
from typing import Any

import numpy
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# How the loader calls the directory of a library, and whether the compiler has OpenMP:
# Apple's has none.
APPLE = sys.platform == "darwin"
BESIDE = "@loader_path" if APPLE else "$ORIGIN"


def enabled(name: str, default: str = "0") -> bool:
    return os.environ.get(f"CINTERVENE_{name}", default) not in ("", "0")


@dataclass
class Lapack:
    """How to compile and link against LAPACKE, and what to ship with the package."""

    libraries: list[str]
    include_dirs: list[str] = field(default_factory=list)
    library_dirs: list[str] = field(default_factory=list)
    macros: list[tuple[str, str | None]] = field(default_factory=list)
    link_args: list[str] = field(default_factory=list)
    shipped: list[str] = field(default_factory=list)


def scipy_lapack() -> Lapack:
    package = os.environ.get("CINTERVENE_OPENBLAS")
    if package is None:
        import scipy_openblas32

        package = os.path.dirname(scipy_openblas32.__file__)
    (library,) = Path(package, "lib").glob("libscipy_openblas.*")
    return Lapack(
        libraries=["scipy_openblas"],
        include_dirs=[os.path.join(package, "include")],
        library_dirs=[str(library.parent)],
        macros=[("CIV_LAPACK_SCIPY", None)],
        link_args=[f"-Wl,-rpath,{BESIDE}"],
        shipped=[str(library), *openmp_runtime()],
    )


def find_lapack() -> Lapack:
    choice = os.environ.get("CINTERVENE_LAPACK", "scipy-openblas32")
    if choice == "scipy-openblas32":
        return scipy_lapack()
    if choice == "system":
        return Lapack(libraries=["lapacke", "lapack", "blas"])
    raise SystemExit(
        f"CINTERVENE_LAPACK: got {choice!r}; expected 'scipy-openblas32' or 'system'"
    )


def compile_args() -> list[str]:
    args = ["-std=c11", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"]
    args += ["-fvisibility=hidden", "-Wall", "-Wextra", "-Wshadow"]
    args += ["-Wmissing-prototypes", "-Wno-unknown-pragmas"]
    # Python's own -g would put the paths of this build into the library.
    args += ["-O0", "-g", "-UNDEBUG"] if enabled("DEBUG") else ["-O3", "-g0"]
    args += ["-Werror"] if enabled("WERROR") else []
    return args + instrumentation() + openmp() + ["-fopenmp-simd"]


def instrumentation() -> list[str]:
    args = []
    if enabled("SANITIZE"):
        args += ["-fsanitize=address,undefined", "-fno-omit-frame-pointer"]
    if enabled("COVERAGE"):
        args += ["--coverage"]
    return args


def openmp() -> list[str]:
    return ["-fopenmp"] if enabled("OPENMP", default="0" if APPLE else "1") else []


def openmp_runtime() -> list[str]:
    """The compiler's libgomp, which a machine without a compiler may lack.

    Its name must stay as it is: the loader then takes the one that is already in the
    process, torch's for instance, and there is never more than one.
    """
    if not openmp():
        return []
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC"))
    command = [*compiler, "-print-file-name=libgomp.so.1"]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    path = found.stdout.strip()
    return [path] if os.path.isabs(path) else []


class BuildExt(build_ext):
    """Builds the extension, then puts the libraries that it needs beside it."""

    def run(self) -> None:
        super().run()
        target = Path(self.get_ext_fullpath("cintervene._core")).parent
        for library in LAPACK.shipped:
            shutil.copy2(library, target)

    def build_extensions(self) -> None:
        """Compile the sources on all cores: setuptools takes one after the other."""
        compile_each = self.compiler.compile

        def compile_side_by_side(sources: list[str], **options: Any) -> list[str]:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                built = pool.map(lambda one: compile_each([one], **options), sources)
                return [name for names in built for name in names]

        self.compiler.compile = compile_side_by_side
        super().build_extensions()


LAPACK = find_lapack()
sources = glob("csrc/**/*.c", recursive=True)
headers = glob("csrc/**/*.h", recursive=True) + glob("csrc/**/*.inc", recursive=True)

setup(
    cmdclass={"build_ext": BuildExt},
    ext_modules=[
        Extension(
            "cintervene._core",
            sources=sorted(sources),
            depends=sorted(headers),
            include_dirs=[
                "csrc/include",
                "csrc/core",
                numpy.get_include(),
                *LAPACK.include_dirs,
            ],
            define_macros=LAPACK.macros,
            library_dirs=LAPACK.library_dirs,
            libraries=[*LAPACK.libraries, "m"],
            extra_compile_args=compile_args(),
            extra_link_args=instrumentation() + openmp() + LAPACK.link_args,
        )
    ],
)
