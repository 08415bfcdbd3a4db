# SPDX-License-Identifier: Apache-2.0
"""Interventions that are added to outputs instead of weights, as adapters are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from cintervene.errors import InterventionError
from cintervene.intervention.application import Applied, can_change
from cintervene.intervention.intervention import Intervention
from cintervene.solvers.update import LowRankUpdate


class AdapterIntervention(Intervention):
    """An intervention in the form that adapters have.

    `apply` leaves the weights alone and adds ``left @ (right @ x)`` to what the modules
    return, in float32 and without rounding the sum of weight and change. Adapters are
    measured in this form (`cintervene.evaluate.measure` takes it), and it works where
    weights cannot be changed: quantised or offloaded ones. The base is not checked.

    Parameters
    ----------
    intervention : Intervention
    updates : mapping of str to LowRankUpdate, optional
        The changes as an artefact holds them; by default those of the intervention.
    """

    def __init__(
        self,
        intervention: Intervention,
        updates: Mapping[str, LowRankUpdate] | None = None,
    ) -> None:
        edits = intervention.edits
        if updates is not None:
            edits = {name: e.with_update(updates[name]) for name, e in edits.items()}
        super().__init__(
            edits,
            model=intervention.model,
            options=intervention.options,
            metrics=intervention.metrics,
            versions=intervention.versions,
        )
        self._handles: WeakKeyDictionary[nn.Module, list[RemovableHandle]]
        self._handles = WeakKeyDictionary()

    def apply(self, model: nn.Module) -> Applied:
        """Add the change to the outputs of the model's modules, until `revert`.

        Raises
        ------
        InterventionError
            The model lacks a module, or the change is attached already.
        """
        if model in self._handles:
            raise InterventionError("this change is attached already; revert it first")
        modules = {name: _module(model, name) for name in self.edits}
        self._handles[model] = [
            module.register_forward_hook(_adder(self.edits[name].update))
            for name, module in modules.items()
        ]
        return Applied(list(modules), [])

    def revert(self, model: nn.Module) -> None:
        """Stop adding the change.

        Raises
        ------
        InterventionError
            It is not attached to this model.
        """
        if model not in self._handles:
            raise InterventionError("this change is not attached to this model")
        for handle in self._handles.pop(model):
            handle.remove()


def applicable_form(intervention: Intervention, model: nn.Module) -> Intervention:
    """Return what `apply` works with on a model: an adapter where weights are fixed."""
    if can_change(model, intervention.edits):
        return intervention
    return AdapterIntervention(intervention)


def _module(model: nn.Module, name: str) -> nn.Module:
    try:
        return model.get_submodule(name.removesuffix(".weight"))
    except AttributeError:
        raise InterventionError(
            f"{type(model).__name__} has no module for {name}; the change was made for "
            "another model"
        ) from None


def _adder(update: LowRankUpdate) -> Callable[[nn.Module, Any, Tensor], Tensor]:
    right = torch.from_numpy(update.right.T.copy()).float()
    left = torch.from_numpy(update.left.T.copy()).float()

    def add(_module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        x = inputs[0].float()
        change = (x @ right.to(x.device)) @ left.to(x.device)
        total: Tensor = output + change
        return total.to(output.dtype)

    return add
