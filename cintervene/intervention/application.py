# SPDX-License-Identifier: Apache-2.0
"""What is kept of a changed model, and why some weights cannot be changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from cintervene.models.offload import in_memory, is_offloaded
from cintervene.models.quantised import is_packed


@dataclass(frozen=True)
class Applied:
    """Which weights `Intervention.apply` changed, and which ones rounding kept."""

    changed: list[str]
    unchanged: list[str]


@dataclass(eq=False)
class _Record:
    """What is kept of a model that an intervention was applied to."""

    digest: str
    originals: dict[str, Tensor]
    results: dict[str, str]


_records: WeakKeyDictionary[nn.Module, list[_Record]] = WeakKeyDictionary()


def can_change(model: nn.Module, names: Iterable[str]) -> bool:
    """Tell whether weights are held in a form and at a place where they are changed."""
    return not any(_why_fixed(model, name) for name in names)


def _why_fixed(model: nn.Module, name: str) -> str | None:
    return _why_packed(model, name) or _why_away(model, name)


def _why_packed(model: nn.Module, name: str) -> str | None:
    module = _owner(model, name)
    if module is None or not is_packed(module):
        return None
    return (
        f"{name}: got packed weights ({type(module).__name__}), expected a matrix of "
        "floats, which alone can be changed; export the intervention with "
        "cintervene.export.lora and load that with peft, or attach it with "
        "cintervene.export.AdapterIntervention"
    )


def _why_away(model: nn.Module, name: str) -> str | None:
    module = _owner(model, name)
    lacking = not isinstance(getattr(module, _key(name), None), nn.Parameter)
    if module is None or lacking or in_memory(module, _key(name)) is not None:
        return None
    if not is_offloaded(module):
        return (
            f"{name}: got a weight on the meta device that nothing brings in, expected "
            "one in memory; load the whole model"
        )
    return (
        f"{name}: got a weight that is offloaded to a disk, expected one in memory; "
        "change the checkpoint with cintervene apply, or attach the intervention with "
        "cintervene.export.AdapterIntervention"
    )


def _owner(model: nn.Module, name: str) -> nn.Module | None:
    """Return the module that has a weight of this name, perhaps packed."""
    try:
        return model.get_submodule(name.rpartition(".")[0])
    except AttributeError:
        return None


def _key(name: str) -> str:
    return name.rpartition(".")[2]


def _restore(weights: Mapping[str, Tensor], originals: Mapping[str, Tensor]) -> None:
    for name, original in originals.items():
        weights[name].detach().copy_(original)
