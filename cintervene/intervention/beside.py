# SPDX-License-Identifier: Apache-2.0
"""A model with an intervention beside the same model without it."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.func import functional_call

from cintervene.intervention.adapter import AdapterIntervention
from cintervene.intervention.application import can_change
from cintervene.intervention.intervention import Intervention
from cintervene.models.wrapped import unwrapped

__all__ = ["Beside"]


class Beside:
    """Called like a model, it computes what the model would with an intervention.

    The model stays as it is, so that both can be called in turns. A second copy is made
    of the changed weights alone, with the bits that `Intervention.apply` gives them.
    Where weights cannot be changed the intervention takes the form of an adapter, which
    is attached during each call.

    Parameters
    ----------
    model : nn.Module
    intervention : Intervention

    Raises
    ------
    InterventionError
        As `Intervention.apply`.
    """

    def __init__(self, model: nn.Module, intervention: Intervention) -> None:
        self._model = unwrapped(model)
        self._weights: dict[str, nn.Parameter] = {}
        self._adapter: AdapterIntervention | None = None
        if _in_place(self._model, intervention):
            with intervention.applied(self._model):
                self._weights = {
                    name: _copied(self._model.get_parameter(name))
                    for name in intervention.edits
                }
        else:
            self._adapter = AdapterIntervention(intervention)
            # Once now, for it may not fit.
            with self._adapter.applied(self._model):
                pass

    def __call__(self, **given: Any) -> Any:
        """Call the model with the intervention."""
        if self._adapter is None:
            return functional_call(self._model, dict(self._weights), (), given)
        with self._adapter.applied(self._model):
            return self._model(**given)


def _in_place(model: nn.Module, intervention: Intervention) -> bool:
    """Whether the weights can be changed, and are where a call reads them."""
    if not can_change(model, intervention.edits):
        return False
    try:
        weights = [model.get_parameter(name) for name in intervention.edits]
    except AttributeError:
        # `apply` says it better.
        return True
    return not any(weight.is_meta for weight in weights)


def _copied(weight: nn.Parameter) -> nn.Parameter:
    return nn.Parameter(weight.detach().clone(), requires_grad=False)
