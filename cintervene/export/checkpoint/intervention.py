# SPDX-License-Identifier: Apache-2.0
"""An intervention as a checkpoint holds it: changed weights, read from its files."""

from __future__ import annotations

from pathlib import Path
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from cintervene.errors import InterventionError
from cintervene.export.checkpoint.shards import Shards
from cintervene.intervention.application import (
    Applied,
    base_forms,
    changeable_weights,
)
from cintervene.intervention.intervention import Intervention
from cintervene.models.sharded import whole, write
from cintervene.models.weights import same_bits
from cintervene.models.wrapped import unwrapped

__all__ = ["CheckpointIntervention"]


class CheckpointIntervention(Intervention):
    """An intervention in the form that a changed checkpoint has.

    `apply` computes nothing: the weights of the files take the place of the model's, so
    that what is measured is what was written.

    Parameters
    ----------
    intervention : Intervention
    directory : Path
        Of the changed model.

    Raises
    ------
    ModelError
        The directory holds no model.
    """

    def __init__(self, intervention: Intervention, directory: Path) -> None:
        super().__init__(
            intervention.edits,
            model=intervention.model,
            options=intervention.options,
            metrics=intervention.metrics,
            versions=intervention.versions,
        )
        self._shards = Shards(directory)
        self._bases: WeakKeyDictionary[nn.Module, dict[str, Tensor]]
        self._bases = WeakKeyDictionary()

    def apply(self, model: nn.Module) -> Applied:
        """Put the stored weights in the place of the model's.

        Raises
        ------
        InterventionError
            The model is not the base, or has them already.
        """
        model = unwrapped(model)
        weights = changeable_weights(model, self.edits, self.model)
        before = {name: whole(weight) for name, weight in weights.items()}
        base_forms(model, self.edits, before)
        shards = self._shards
        stored = {n: shards.read(shards.find(n, self.edits[n])) for n in weights}
        bases = {name: values.detach().clone() for name, values in before.items()}
        self._bases[model] = bases
        _overwrite(weights, stored)
        same = {n for n, one in weights.items() if same_bits(whole(one), bases[n])}
        return Applied([n for n in weights if n not in same], sorted(same))

    def revert(self, model: nn.Module) -> None:
        """Give the model its own weights back.

        Raises
        ------
        InterventionError
            It has them.
        """
        model = unwrapped(model)
        if model not in self._bases:
            raise InterventionError("the stored weights are not in this model")
        _overwrite(
            changeable_weights(model, self.edits, self.model), self._bases.pop(model)
        )


def _overwrite(weights: dict[str, Tensor], values: dict[str, Tensor]) -> None:
    for name, weight in weights.items():
        write(weight, values[name])
