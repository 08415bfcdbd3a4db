# SPDX-License-Identifier: Apache-2.0
"""Offloaded modules in memory for as long as they are worked on.

accelerate brings an offloaded parameter in for each call of its module, and drops it
afterwards. Where a module is called for many batches in turn, that is once for each of
them. Here it is once for all, and the module that comes next is read meanwhile.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from cintervene.models.offload import bringing_in, has_offloaded

__all__ = ["in_turn", "resident"]


class _Kept(Mapping[str, Tensor]):
    """In the place of what accelerate takes parameters from: takes each once.

    Attributes
    ----------
    below : mapping of str to Tensor
        That in whose place it is.
    """

    def __init__(self, below: Mapping[str, Tensor], device: Any) -> None:
        self.below, self._device = below, torch.device(device)
        self._values: dict[str, Tensor] = {}

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._values:
            self._values[name] = self.below[name].to(self._device)
        return self._values[name]

    def __contains__(self, name: object) -> bool:
        return name in self.below

    def __iter__(self) -> Iterator[str]:
        return iter(self.below)

    def __len__(self) -> int:
        return len(self.below)


class _Reading:
    """The offloaded parameters of some modules, to be kept from the first use on."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self._kept = [
            (part, hook, _Kept(hook.weights_map, hook.execution_device))
            for module in modules
            for part, hook in bringing_in(module)
        ]

    def ahead(self) -> _Reading:
        """Read all of them now."""
        from accelerate.utils import named_module_tensors

        for part, hook, kept in self._kept:
            for name, _ in named_module_tensors(
                part, include_buffers=hook.offload_buffers,
                recurse=hook.place_submodules, remove_non_persistent=True,
            ):  # fmt: skip
                kept[name]
        return self

    @contextmanager
    def used(self) -> Iterator[None]:
        """Let calls of the modules inside take them from here."""
        with ExitStack() as stack:
            for _, hook, kept in self._kept:
                hook.weights_map = kept
                stack.callback(setattr, hook, "weights_map", kept.below)
            yield


@contextmanager
def resident(*modules: nn.Module) -> Iterator[None]:
    """Read each offloaded parameter once at most, however often its module is called.

    The weights must not be changed inside.
    """
    with _Reading(modules).used():
        yield


def in_turn(modules: Sequence[nn.Module]) -> Generator[nn.Module, None, None]:
    """Yield modules, each of which is in memory until the next one is asked for.

    Another thread reads the next one meanwhile, so that two are in memory at most.
    Nothing is done for modules that are there anyway. Close it where not all are asked
    for.
    """
    if not any(map(has_offloaded, modules)):
        yield from modules
        return
    with ThreadPoolExecutor(1, thread_name_prefix="reading") as reader:
        coming = [reader.submit(_Reading(modules[:1]).ahead)]
        for at, module in enumerate(modules):
            # What was read for the module before is let go of first.
            reading = coming.pop().result()
            if at + 1 < len(modules):
                following = _Reading(modules[at + 1 : at + 2])
                coming.append(reader.submit(following.ahead))
            with reading.used():
                yield module
            del reading
