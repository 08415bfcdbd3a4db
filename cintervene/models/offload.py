# SPDX-License-Identifier: Apache-2.0
"""Parameters that accelerate keeps out of a model, and where the model computes.

An offloaded parameter is an empty one on the meta device. A hook on its module brings
the values in for each call, from a mapping of names to tensors, which are in memory or
are read from a file each time.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from cintervene.errors import ModelError

__all__ = [
    "bringing_in",
    "device_of",
    "has_offloaded",
    "in_memory",
    "is_offloaded",
    "parameter_identity",
    "parameter_value",
]


def is_offloaded(module: nn.Module) -> bool:
    """Tell whether accelerate brings a module's own parameters in when it is called."""
    return _hook(module) is not None


def bringing_in(module: nn.Module) -> Iterator[tuple[nn.Module, Any]]:
    """The parts of a module whose own parameters accelerate brings in, and its hooks.

    A hook takes the values from its ``weights_map``.
    """
    for part in module.modules():
        hook = _hook(part)
        if hook is not None:
            yield part, hook


def has_offloaded(module: nn.Module) -> bool:
    """Tell whether there are such parts."""
    return any(True for _ in bringing_in(module))


def parameter_value(module: nn.Module, name: str = "weight") -> Tensor:
    """Return a parameter of a module, or the values it stands for when offloaded.

    Those are the ones that accelerate holds, not a copy, if they are in memory.

    Raises
    ------
    ModelError
        It is on the meta device and nothing brings it in.
    """
    tensor = getattr(module, name)
    assert isinstance(tensor, Tensor)
    if not tensor.is_meta:
        return tensor
    hook = _hook(module)
    if hook is None:
        raise ModelError(
            f"{name} of a {type(module).__name__} is on the meta device and no hook of "
            "accelerate on that module brings it in; load the whole model"
        )
    values: Tensor = hook.weights_map[name]
    return values.to(tensor.dtype)


def in_memory(module: nn.Module, name: str = "weight") -> Tensor | None:
    """Return the tensor that counts if changing it changes the model, else None."""
    tensor: Tensor = getattr(module, name)
    if not tensor.is_meta:
        return tensor
    hook = _hook(module)
    values = _find(hook.weights_map, name) if hook else None
    return values if values is not None and values.dtype == tensor.dtype else None


def parameter_identity(module: nn.Module, name: str = "weight") -> Hashable:
    """Return what is equal for two parameters that are one."""
    tensor = getattr(module, name)
    if not tensor.is_meta:
        return id(tensor)
    kept = in_memory(module, name)
    # What is read from a disk is another tensor after each call of its module.
    here = (id(module), name)
    return ("on a disk", *here) if kept is None else ("offloaded", kept.data_ptr())


def device_of(module: nn.Module) -> torch.device:
    """Return the device on which the first parameters of a module are used.

    Where it has none, as quantised modules, that of its buffers.
    """
    for part in module.modules():
        hook = _hook(part)
        if hook is not None:
            return torch.device(hook.execution_device)
        for parameter in part.parameters(recurse=False):
            return parameter.device
    return next((buffer.device for buffer in module.buffers()), torch.device("cpu"))


def _hook(module: nn.Module) -> Any:
    """Return accelerate's hook that brings a module's parameters in, or None."""
    attached = getattr(module, "_hf_hook", None)
    hooks: Any = getattr(attached, "hooks", (attached,))
    for hook in hooks:
        if getattr(hook, "offload", False) and hook.weights_map is not None:
            return hook
    return None


def _find(values: Mapping[str, Tensor], name: str) -> Tensor | None:
    """Look a tensor up without reading it from a file."""
    from accelerate.utils import OffloadedWeightsLoader, PrefixedDataset

    below = getattr(values, "below", None)
    if below is not None:
        # Kept for a while, and to be changed where it comes from: see `resident`.
        return _find(below, name)
    if isinstance(values, PrefixedDataset):
        return _find(values.dataset, f"{values.prefix}{name}")
    if isinstance(values, OffloadedWeightsLoader):
        values = values.state_dict
    return values.get(name) if isinstance(values, dict) else None
