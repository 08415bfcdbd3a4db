# SPDX-License-Identifier: Apache-2.0
"""Interventions that are added to outputs instead of weights, as adapters are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from cintervene.errors import InterventionError
from cintervene.intervention.application import Applied, can_change
from cintervene.intervention.intervention import Intervention
from cintervene.models.compiled import NoticedHooks
from cintervene.models.decoder import TextConfig, text_config
from cintervene.models.sharded import ELSE, sharding_of_inputs
from cintervene.models.surroundings import uncast
from cintervene.models.wrapped import submodule, unwrapped
from cintervene.solvers.update import LowRankUpdate

Removable = RemovableHandle | NoticedHooks


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
        self._handles: WeakKeyDictionary[nn.Module, list[Removable]]
        self._handles = WeakKeyDictionary()

    def apply(self, model: nn.Module) -> Applied:
        """Add the change to the outputs of the model's modules, until `revert`.

        Raises
        ------
        InterventionError
            The model lacks a module, or the change is attached already.
        """
        model = unwrapped(model)
        if model in self._handles:
            raise InterventionError("this change is attached already; revert it first")
        kind = sharding_of_inputs(model)
        if kind is not None:
            raise InterventionError(
                f"model: got one that is parted among processes by {kind}, expected "
                f"one whose modules see whole inputs; {ELSE}"
            )
        adders = {
            name: _Adder(name, _module(model, name), edit.update)
            for name, edit in self.edits.items()
        }
        handles = [one.module.register_forward_hook(one) for one in adders.values()]
        check = partial(_check_added, list(adders.values()), text_config(model))
        handles.append(model.register_forward_hook(check))
        self._handles[model] = [*handles, NoticedHooks()]
        return Applied(list(adders), [])

    def revert(self, model: nn.Module) -> None:
        """Stop adding the change.

        Raises
        ------
        InterventionError
            It is not attached to this model.
        """
        model = unwrapped(model)
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
        return submodule(model, name.removesuffix(".weight"))
    except AttributeError:
        raise InterventionError(
            f"{type(model).__name__} has no module for {name}; the change was made for "
            "another model"
        ) from None


class _Adder:
    """A hook that adds a change to what a module returns.

    Attributes
    ----------
    module : nn.Module
    ran : bool
        Whether it did, since that was last asked for.
    """

    def __init__(self, name: str, module: nn.Module, update: LowRankUpdate) -> None:
        self.name, self.module, self.ran = name, module, False
        self._right = torch.from_numpy(update.right.T.copy()).float()
        self._left = torch.from_numpy(update.left.T.copy()).float()

    def __call__(self, _module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        self.ran = True
        x = inputs[0].float()
        with uncast():
            change = (x @ self._right.to(x.device)) @ self._left.to(x.device)
        total: Tensor = output + change
        return total.to(output.dtype)


def _check_added(
    adders: Sequence[_Adder], whole: TextConfig, model: nn.Module, _args: Any, _y: Any
) -> None:
    """After a call of the model: refuse a result to which a change was not added.

    But drafts leave layers out, and so does training where it drops them.
    """
    missed = [one.name for one in adders if not one.ran]
    for one in adders:
        one.ran = False
    fewer = text_config(model).num_hidden_layers < whole.num_hidden_layers
    if missed and not fewer and not model.training:
        raise InterventionError(
            f"{missed[0]}: the change attached to its module was not added; the model "
            "runs code in its place that calls no hooks (compiled, exported, fused "
            "kernels), or leaves it out; load it without that, or change its weights"
        )
