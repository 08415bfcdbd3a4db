# SPDX-License-Identifier: Apache-2.0
"""What is read of a model on a disk, and how much of it is in memory at once."""

from __future__ import annotations

import re
import threading
import weakref
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

accelerate = pytest.importorskip("accelerate")
torch = pytest.importorskip("torch")

__all__ = ["Reads", "counted"]

LAYER = re.compile(r"layers\.(\d+)\.")


class Reads(Mapping[str, Any]):
    """In the place of accelerate's loader of a disk.

    Attributes
    ----------
    counts : Counter
        How often each parameter was read, by name.
    most_layers : int
        Of how many layers parameters were in memory at once.
    threads : set of str
        The names of the threads that read.
    """

    def __init__(self, loader: Mapping[str, Any]) -> None:
        self._loader, self._lock = loader, threading.Condition(threading.RLock())
        self._alive: Counter[int] = Counter()
        self.counts: Counter[str] = Counter()
        self.most_layers = 0
        self.threads: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        # A tensor over an array keeps it for as long as the memory is used.
        array = self._loader[name].view(torch.int16).numpy().copy()
        layer = LAYER.search(name)
        with self._lock:
            self.counts[name] += 1
            self.threads.add(threading.current_thread().name)
            if layer:
                self._alive[int(layer[1])] += 1
                self.most_layers = max(self.most_layers, len(+self._alive))
                weakref.finalize(array, self._gone, int(layer[1]))
                self._lock.notify_all()
        return torch.from_numpy(array).view(torch.bfloat16)

    def __iter__(self) -> Iterator[str]:
        return iter(self._loader)

    def __len__(self) -> int:
        return len(self._loader)

    def of_layer(self, layer: int) -> int:
        """How often the parameter of a layer was read that was read most."""
        names = [name for name in self.counts if f"layers.{layer}." in name]
        return max(self.counts[name] for name in names)

    def comes(self, layer: int) -> bool:
        """Wait until something of a layer is in memory, for some minutes at most."""
        with self._lock:
            return self._lock.wait_for(lambda: self._alive[layer] > 0, timeout=300)

    def _gone(self, layer: int) -> None:
        with self._lock:
            self._alive[layer] -= 1


def counted(model: Any, folder: Path) -> tuple[Any, Reads]:
    """A bfloat16 model with all of its parameters on a disk, and what is read of it."""
    place = torch.device("cpu")
    accelerate.disk_offload(
        model, folder, execution_device=place, offload_buffers=False
    )
    reads: Reads | None = None
    for module in model.modules():
        values = getattr(getattr(module, "_hf_hook", None), "weights_map", None)
        if values is not None:
            reads = reads or Reads(values.dataset)
            values.dataset = reads
    assert reads is not None
    return model, reads
