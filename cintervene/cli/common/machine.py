# SPDX-License-Identifier: Apache-2.0
"""What a bug report wants to know: packages, processor, libraries, GPUs."""

from __future__ import annotations

import os
import platform
import re
import sys
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

import numpy as np

from cintervene.solvers.pcr import pcr
from cintervene.utils.runtime import show_config
from cintervene.version import __version__

__all__ = ["Package", "computes", "gpus", "packages", "platform_facts", "variables"]

# Extras of pyproject.toml that users ask for, and what each is for.
EXTRAS = {"": "itself", "hf": "models", "plot": "figures"}
# What has no extra of its own, because not every machine takes it.
OTHERS = {"peft": "adapters in peft", "bitsandbytes": "quantised models on a GPU"}
VARIABLES = (
    "CINTERVENE_CPU",
    "CUDA_VISIBLE_DEVICES",
    "HF_HOME",
    "HF_HUB_OFFLINE",
    "OMP_NUM_THREADS",
    "OMP_WAIT_POLICY",
    "OPENBLAS_NUM_THREADS",
)
REQUIREMENT = re.compile(
    r"""(?P<name>[\w.-]+)(?P<versions>[^;]*)(;.*extra == ["'](?P<extra>\w+))?"""
)
OPENMP = re.compile(r"\S*/(lib(?:gomp|iomp|omp)[^/\s]*)$", re.M)


@dataclass(frozen=True)
class Package:
    """A package that this one may use.

    Attributes
    ----------
    name, purpose : str
    versions : str
        Those that will do, as pip writes them; "" for any.
    found : str or None
        The version that is installed.
    fits : bool
        Whether it is installed in a version that will do.
    needed : bool
        Whether a command of the package may end for the lack of it.
    """

    name: str
    purpose: str
    versions: str
    found: str | None
    fits: bool
    needed: bool

    @property
    def remedy(self) -> str:
        """The command after which it is there; "" where it is."""
        wanted = f"{self.name}{self.versions}"
        return "" if self.fits else f"pip install {wanted!r}"


def packages() -> list[Package]:
    """What the metadata of this package names for users, and other packages it uses."""
    found = []
    for line in requires("cintervene") or []:
        parts = REQUIREMENT.match(line)
        if parts is not None and (parts["extra"] or "") in EXTRAS:
            purpose = EXTRAS[parts["extra"] or ""]
            found.append(_package(parts["name"], parts["versions"].strip(), purpose))
    return found + [
        _package(name, "", use, needed=False) for name, use in OTHERS.items()
    ]


def _package(name: str, versions: str, purpose: str, needed: bool = True) -> Package:
    try:
        there = version(name)
    except PackageNotFoundError:
        return Package(name, purpose, versions, None, False, needed)
    return Package(name, purpose, versions, there, _fits(there, versions), needed)


def _fits(there: str, versions: str) -> bool:
    """Whether a version is one of those; True where nothing can tell."""
    try:
        specifiers: Any = import_module("packaging.specifiers")
    except ImportError:
        return True
    return bool(specifiers.SpecifierSet(versions).contains(there, prereleases=True))


def platform_facts() -> dict[str, str]:
    """System, processor, memory, and how the core computes."""
    config = show_config()
    return {
        "cintervene": __version__,
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "system": platform.platform(),
        "processor": _processor(),
        "cores": f"{_cores()} of {os.cpu_count()}",
        "memory": _memory(),
        "kernels": config["cpu"],
        "threads": str(config["threads"]),
        "lapack": config["lapack"],
        "openmp": _openmp(),
    }


def computes() -> bool:
    """Whether a small problem is solved and its solution proved."""
    concepts = np.array([[0.0, 0.5]])
    return pcr(np.array([[2.0, 0.0]]), np.array([[0.0, 1.0]]), concepts, 1.0).certified


def gpus() -> list[str] | None:
    """The GPUs that torch can use; None where there is no torch to ask.

    Raises
    ------
    ImportError, OSError
        torch is installed and cannot be loaded.
    """
    try:
        version("torch")
    except PackageNotFoundError:
        return None
    torch: Any = import_module("torch")
    found = []
    for number in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(number)
        found.append(f"{about.name}, {about.total_memory / 2**30:.0f} GiB")
    if getattr(torch.backends, "mps", None) and torch.backends.mps.is_available():
        found.append("Apple GPU (mps)")
    return found


def variables() -> dict[str, str]:
    """Variables of the environment that change how it computes or loads."""
    return {name: os.environ[name] for name in VARIABLES if name in os.environ}


def _processor() -> str:
    text = _read("/proc/cpuinfo")
    named = re.search(r"^model name\s*: (.*)$", text, re.M)
    return f"{named[1] if named else platform.processor()}, {platform.machine()}"


def _cores() -> int:
    # Not every system tells which cores a process may use.
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory() -> str:
    total = re.search(r"^MemTotal:\s*(\d+) kB", _read("/proc/meminfo"), re.M)
    free = re.search(r"^MemAvailable:\s*(\d+) kB", _read("/proc/meminfo"), re.M)
    if total is None or free is None:
        return "unknown"
    return f"{int(free[1]) / 2**20:.1f} of {int(total[1]) / 2**20:.1f} GiB free"


def _openmp() -> str:
    """The OpenMP runtimes in this process; more than one is a problem."""
    maps = _read("/proc/self/maps")
    names = sorted({found[1] for found in OPENMP.finditer(maps)})
    return ", ".join(names) if names else "none" if maps else "unknown"


def _read(path: str) -> str:
    try:
        return Path(path).read_text("utf-8", errors="replace")
    except OSError:
        return ""
