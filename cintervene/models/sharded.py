# SPDX-License-Identifier: Apache-2.0
"""Models of which each process holds a part: FSDP and tensor parallelism.

Weights that can be put together and parted again are changed as wholes. All processes
have to do the same at the same time, for each sends its part to the others.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor, nn

from cintervene.errors import ModelError

__all__ = [
    "ELSE", "FLAT", "check_whole_model", "memory_of", "part_anew", "sharding",
    "sharding_of_inputs", "whole", "why_unparted", "write",
]  # fmt: skip

ELSE = (
    "load it in one process, over several devices if need be, with "
    'from_pretrained(..., device_map="auto")'
)
FLAT, PARTED, TENSOR = (
    "FullyShardedDataParallel", "fully_shard (FSDP2)", "tensor parallelism"
)  # fmt: skip


def _is(value: object, module: str, name: str) -> bool:
    """Whether it is of a class of torch.distributed, which takes long to import."""
    found = sys.modules.get(f"torch.distributed.{module}")
    kind = getattr(found, name, None)
    return isinstance(kind, type) and isinstance(value, kind)


def _is_part(weight: object) -> bool:
    return _is(weight, "tensor", "DTensor")


def _parts_anew(module: nn.Module) -> bool:
    return _is(module, "fsdp", "FSDPModule")


def sharding(model: nn.Module) -> str | None:
    """Name what parts a model among processes, None where nothing does."""
    for module in model.modules():
        if _is(module, "fsdp", "FullyShardedDataParallel"):
            return FLAT
        if _parts_anew(module):
            return PARTED
    return TENSOR if any(map(_is_part, model.parameters())) else None


def sharding_of_inputs(model: nn.Module) -> str | None:
    """Name what lets modules see other inputs than in a whole model, None for nothing.

    `fully_shard` puts weights together before a module is called; several dimensions
    of processes do more than that.
    """
    kind = sharding(model)
    if kind == PARTED:
        parts: list[Any] = [one for one in model.parameters() if _is_part(one)]
        return TENSOR if any(one.device_mesh.ndim > 1 for one in parts) else None
    return kind


def check_whole_model(model: nn.Module) -> None:
    """Refuse a model of which each process holds a part.

    Raises
    ------
    ModelError
    """
    kind = sharding(model)
    if kind is not None:
        raise ModelError(
            f"model: got one that is parted among processes by {kind}, expected one "
            f"that this process has as a whole; {ELSE}"
        )


def part_anew(model: nn.Module) -> None:
    """Let FSDP give back what it put together for a forward pass.

    What is written to that would be lost as soon as it does so by itself.
    """
    for module in model.modules():
        if _parts_anew(module):
            module.reshard()  # type: ignore[operator]


def whole(weight: Tensor) -> Tensor:
    """The values of a weight: itself, or put together from all processes."""
    if not _is_part(weight):
        return weight
    part: Any = weight.detach()
    values: Tensor = part.full_tensor()
    return values


def write(weight: Tensor, values: Tensor) -> None:
    """Overwrite a weight, or this process's part of it, with that of the values."""
    if _is_part(weight):
        part: Any = weight.detach()
        part.to_local().copy_(_part_like(part, values))
    else:
        weight.detach().copy_(values)


def memory_of(weight: Tensor) -> int:
    """What is equal for weights that share their memory."""
    part: Any = weight.detach()
    return int((part.to_local() if _is_part(weight) else part).data_ptr())


def why_unparted(weight: object) -> str | None:
    """Say why a weight cannot be put together and parted again, None if it can.

    The only way to know is to try, in all processes.
    """
    if not isinstance(weight, Tensor) or not _is_part(weight):
        return None
    part: Any = weight.detach()
    try:
        same = torch.equal(_part_like(part, whole(weight)), part.to_local())
    except (RuntimeError, NotImplementedError, ValueError, AssertionError) as error:
        text = " ".join(str(error).split())[:200]
        return f"{type(error).__name__}: {text}"
    return None if same else "its parts come out as other ones"


def _part_like(part: Any, values: Tensor) -> Tensor:
    """The part that this process has of values, parted as another; nothing is sent."""
    from torch.distributed.tensor import distribute_tensor

    mesh, placements = part.device_mesh, part.placements
    return distribute_tensor(values, mesh, placements, src_data_rank=None).to_local()
