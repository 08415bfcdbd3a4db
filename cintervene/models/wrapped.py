# SPDX-License-Identifier: Apache-2.0
"""Models within modules that call them otherwise: compiled, replicated, checkpointed.

Names of modules and parameters are those that the model has without them.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from cintervene.errors import ArgumentError

__all__ = ["name_of", "named_modules", "submodule", "unwrapped"]

# What holds the module within: of torch.compile, and of activation checkpoints.
HOLDERS = ("_orig_mod", "_checkpoint_wrapped_module")


def unwrapped(model: nn.Module) -> nn.Module:
    """The model itself, which wrappers around it call.

    Raises
    ------
    ArgumentError
        It is no module: a name, a tokenizer, nothing.
    """
    if not isinstance(model, nn.Module):
        raise ArgumentError(
            f"model: got {type(model).__name__}; expected a model, as "
            "cintervene.models.load returns it with its tokenizer"
        )
    inner = _inner(model)
    while inner is not None:
        model, inner = inner, _inner(inner)
    return model


def name_of(model: nn.Module) -> str:
    """What a model was loaded as, or its class where it does not tell."""
    return str(getattr(model, "name_or_path", "") or type(model).__name__)


def named_modules(
    model: nn.Module, remove_duplicate: bool = True
) -> Iterator[tuple[str, nn.Module]]:
    """As `nn.Module.named_modules`, without the names that wrappers add.

    A wrapper has the name of the module within.
    """
    names: dict[str, str] = {}
    holders: set[str] = set()
    for path, module in model.named_modules(remove_duplicate=remove_duplicate):
        parent, _, leaf = path.rpartition(".")
        name = names.get(parent, "")
        if path and parent not in holders:
            name = f"{name}.{leaf}" if name else leaf
        names[path] = name
        if _inner(module) is not None:
            holders.add(path)
        yield name, module


def submodule(model: nn.Module, name: str) -> nn.Module:
    """As `nn.Module.get_submodule`, by the name without wrappers.

    Raises
    ------
    AttributeError
        There is none of that name.
    """
    module = unwrapped(model)
    for part in filter(None, name.split(".")):
        module = unwrapped(module.get_submodule(part))
    return module


def _inner(module: nn.Module) -> nn.Module | None:
    parts = module._modules
    if isinstance(module, (DistributedDataParallel, nn.DataParallel)):
        return parts["module"]
    return next((parts[name] for name in HOLDERS if name in parts), None)
