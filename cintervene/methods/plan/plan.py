# SPDX-License-Identifier: Apache-2.0
"""A defence's memory and seconds, told from the model's sizes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cintervene.errors import ArgumentError
from cintervene.methods.config import MethodConfig, RequestConfig
from cintervene.methods.defend import configure
from cintervene.methods.gate.config import GateConfig
from cintervene.methods.pcr.config import PCRConfig
from cintervene.methods.pcr.resolve import choose_layers
from cintervene.methods.plan.material import material_of
from cintervene.methods.plan.memory import LIBRARIES, Sizes, phases_of
from cintervene.methods.plan.seconds import seconds_of
from cintervene.methods.plan.shape import ModelShape, config_of
from cintervene.methods.registry import DEFAULT_METHOD, method_of
from cintervene.models.decoder import requested_layers
from cintervene.models.devices import named_device
from cintervene.utils.parameters import check_alone

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["Plan", "plan"]

# Layers that tsr and arr change where none are named.
DESCENT_LAYERS = 5
GB = 1e9


@dataclass(frozen=True)
class Plan:
    """What a defence is expected to take.

    Attributes
    ----------
    method : str
    host_bytes, device_bytes : int
        The most memory of the process, model and libraries included, and of the
        accelerator; 0 where there is none.
    seconds : float
        On this machine as it was when it was asked, of one thread; on an accelerator
        the host's part alone.
    model_bytes : int
        All weights of the model.
    phases : dict of str to int
        Bytes beside the libraries and the model in each phase, on host and device.
    parts : dict of str to float
        Seconds of each kind of work.
    """

    method: str
    host_bytes: int
    device_bytes: int
    seconds: float
    model_bytes: int
    phases: dict[str, int]
    parts: dict[str, float]

    def __str__(self) -> str:
        most = max(self.phases, key=lambda name: self.phases[name])
        device = f", {self.device_bytes / GB:.1f} GB on the device"
        return (
            f"{self.method}: about {self.host_bytes / GB:.1f} GB of host memory"
            f"{device if self.device_bytes else ''}, most of it in phase {most!r}; "
            f"{self.model_bytes / GB:.1f} GB are the model; about "
            f"{_duration(self.seconds)} of one core"
        )


def plan(
    model: nn.Module | str | Path,
    config: MethodConfig | None = None,
    *,
    method: str | None = None,
    device: torch.device | str = "cpu",
    **parameters: Any,
) -> Plan:
    """Tell what `defend` would take of memory and time, before it is called.

    The model is not run, and of a directory the configuration alone is read. Expect
    memory to be right within a fifth, and seconds within a factor of two or three: they
    depend on what a model answers, and on how many strengths are tried.

    Parameters
    ----------
    model : nn.Module or path
        A causal language model of transformers, or its directory.
    config : MethodConfig, optional
        As for `defend`.
    method : str, optional
        Without `config`, the method by name, "pcr" by default.
    device : torch.device or str
        "cpu", or where the model is to be, which need not be in this machine: what is
        computed there then counts as device memory.
    **parameters
        Without `config`, the parameters of which it is made.

    Returns
    -------
    Plan

    Raises
    ------
    ArgumentError
        The method, a parameter or the device is unknown or out of range, or the method
        is one that no plan is made of.
    ModelError
        The configuration does not name the sizes.

    Examples
    --------
    >>> print(ci.plan("my-model", forbid=["bomb", "kidnapping"]))
    >>> ci.plan(model, method="tsr", layers=[20, 21]).host_bytes
    """
    if config is None:
        chosen = DEFAULT_METHOD if method is None else method
        config = configure(chosen, parameters)
    else:
        check_alone(["method"] * (method is not None) + list(parameters))
    method_of(config)
    if not isinstance(config, PCRConfig | RequestConfig):
        raise ArgumentError(
            f"method: got {config.method!r}, of which nothing is known beforehand; "
            "expected one of the package's own"
        )
    shape = ModelShape.of(model)
    sizes, neurons = _sizes(config, shape, model)
    phases = phases_of(config, sizes, neurons)
    here = named_device(device).type == "cpu"
    held = [phase.algebra + (phase.tensors if here else 0.0) for phase in phases]
    away = max(phase.tensors for phase in phases)
    parts = seconds_of(config, sizes, neurons, here)
    return Plan(
        method=config.method,
        host_bytes=round(LIBRARIES + (shape.model if here else 0) + max(held)),
        device_bytes=0 if here else round(shape.model + away),
        seconds=sum(parts.values()),
        model_bytes=shape.model,
        phases={one.name: round(one.algebra + one.tensors) for one in phases},
        parts=parts,
    )


def _sizes(
    config: PCRConfig | RequestConfig,
    shape: ModelShape,
    model: nn.Module | str | Path,
) -> tuple[Sizes, bool]:
    """The sizes that the phases have, and whether neurons are changed."""
    layers = _layers(config, shape.layers)
    neurons = isinstance(config, PCRConfig) and _changes_neurons(
        config, layers[-1], model
    )
    if neurons:
        layers = layers[-1:]
    matrix = getattr(config, "matrix", "down_proj")
    above = shape.layers - min(layers)
    material = material_of(config, neurons)
    d_in = shape.d_in(matrix)
    return Sizes(shape, material, d_in, len(layers), above), neurons


def _changes_neurons(
    config: PCRConfig, layer: int, model: nn.Module | str | Path
) -> bool:
    """Whether they are asked for, and the model has such; so where that is unknown."""
    if config.hinge == "on" or not config.wants_neurons:
        return config.wants_neurons
    from cintervene.models.outline import has_plain_neurons

    return has_plain_neurons(config_of(model), layer) is not False


def _layers(config: PCRConfig | RequestConfig, n_layers: int) -> list[int]:
    """The layers that are named, or about those that will be chosen."""
    if isinstance(config, PCRConfig):
        return choose_layers(config.layers, n_layers, config.kind)
    named = requested_layers(config.layers, n_layers)
    if named is not None:
        return named
    count = 1 if isinstance(config, GateConfig) else min(DESCENT_LAYERS, n_layers)
    first = (n_layers - count) // 2
    return list(range(first, first + count))


def _duration(seconds: float) -> str:
    """In the unit that is read best."""
    for unit, size in (("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"
