# SPDX-License-Identifier: Apache-2.0
"""The pretended accelerator "fakegpu", of which there are two, for tests without one.

Host memory under another device type: tensors of two devices cannot be mixed, nothing
reads them without a copy, and each copy is noted. It is registered once and for the
whole process, before torch first differentiates; see tests/device/conftest.py.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

__all__ = ["NAME", "Copy", "noted_copies", "register"]

NAME, EXTENSION = "fakegpu", "fakegpu_device"
SOURCE = Path(__file__).parent / "device.cpp"
BUILDS = Path(__file__).parents[3] / "build"
CUDA_OF_DLPACK = 2


@dataclass(frozen=True)
class Copy:
    """One tensor that went from one device to another.

    Attributes
    ----------
    way : str
        "down" to the host, "up" from it, "across" between devices.
    shape : tuple of int
    size : int
        Bytes.
    place : str
        The function of the package that asked for it, "" where none did.
    """

    way: str
    shape: tuple[int, ...]
    size: int
    place: str


_listening: list[list[Copy]] = []


@contextmanager
def noted_copies() -> Iterator[list[Copy]]:
    """The copies between devices that are made inside, filled in as they happen."""
    copies: list[Copy] = []
    _listening.append(copies)
    try:
        yield copies
    finally:
        _listening.remove(copies)


def register() -> None:
    """Build the device, if that was not done, and make it known to torch."""
    device = _load(_built())
    device.on_copy(_note)
    torch.utils.rename_privateuse1_backend(NAME)
    torch._register_device_module(NAME, _device_module(device))
    torch.utils.generate_methods_for_privateuse1_backend(unsupported_dtype=None)
    torch.Tensor.__dlpack_device__ = _dlpack_device  # type: ignore[method-assign]


def _built() -> Path:
    """The compiled extension, made anew where the source or torch is another one."""
    content = SOURCE.read_bytes() + f"{torch.__version__} {sys.version}".encode()
    digest = hashlib.sha256(content).hexdigest()[:16]
    target = BUILDS / f"{EXTENSION}-{digest}.so"
    if not target.exists():
        from torch.utils.cpp_extension import include_paths, library_paths

        BUILDS.mkdir(exist_ok=True)
        part = target.with_suffix(f".{os.getpid()}")
        headers = [*include_paths(), sysconfig.get_paths()["include"]]
        command = [
            "g++", "-std=c++20", "-O1", "-fPIC", "-shared",
            str(SOURCE), "-o", str(part),
            f"-DTORCH_EXTENSION_NAME={EXTENSION}",
            *(f"-isystem{path}" for path in headers),
            *(f"-L{path}" for path in library_paths()),
            "-lc10", "-ltorch_cpu", "-ltorch", "-ltorch_python",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        part.rename(target)
    return target


def _load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(EXTENSION, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _device_module(device: Any) -> ModuleType:
    """What torch, transformers and accelerate ask of `torch.cuda` and its like."""
    module: Any = ModuleType(f"torch.{NAME}")
    module.is_available = module.is_initialized = lambda: True
    module.device_count = lambda: device.DEVICES
    module.current_device = device.current
    module.set_device = lambda one: device.set_current(torch.device(one).index or 0)
    module._is_in_bad_fork = lambda: False
    module.manual_seed = module.manual_seed_all = lambda seed: None
    module.get_rng_state = lambda *_device: torch.empty(0)
    module.set_rng_state = lambda *_state: None
    module.synchronize = lambda *_device: None
    module.empty_cache = lambda: None
    module.get_amp_supported_dtype = lambda: [torch.bfloat16, torch.float16]
    return module


def _note(source: str, target: str, shape: list[int], size: int) -> None:
    if not _listening:
        return
    way = "down" if target == "cpu" else "up" if source == "cpu" else "across"
    copy = Copy(way, tuple(shape), size, _place())
    for copies in _listening:
        copies.append(copy)


def _place() -> str:
    """The innermost function of the package; torch differentiates in other threads."""
    try:
        frame = sys._getframe(2)
    except ValueError:
        return ""
    while frame is not None:
        _, found, file = frame.f_code.co_filename.rpartition("/cintervene/")
        if found:
            return f"{file.removesuffix('.py')}:{frame.f_code.co_qualname}"
        frame = frame.f_back
    return ""


_of_torch = torch.Tensor.__dlpack_device__


def _dlpack_device(self: torch.Tensor) -> Any:
    if self.device.type == NAME:
        return CUDA_OF_DLPACK, self.device.index or 0
    return _of_torch(self)
