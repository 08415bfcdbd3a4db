# SPDX-License-Identifier: Apache-2.0
"""What a change of a weight adds to its projection's output."""

from __future__ import annotations

import torch
from torch import Tensor

from cintervene.errors import ArgumentError
from cintervene.models.surroundings import undisturbed
from cintervene.models.targets import Target
from cintervene.solvers.update import LowRankUpdate

__all__ = ["OutputChange"]

# Rows that are widened at a time: a whole batch may have as many inputs as a weight.
ROWS = 256


class OutputChange:
    """Adds ``update @ x`` to outputs, in float32.

    Parameters
    ----------
    update : LowRankUpdate or Tensor
        The change of the (d_out, d_in) weight, in factors or whole.
    target : Target
        The projection.

    Raises
    ------
    ArgumentError
        The change has another shape than the weight.
    """

    def __init__(self, update: LowRankUpdate | Tensor, target: Target) -> None:
        factors = (
            [update] if isinstance(update, Tensor) else [update.right, update.left]
        )
        self._factors = [
            torch.as_tensor(factor).to(target.device, torch.float32)
            for factor in factors
        ]
        shape = (self._factors[-1].shape[0], self._factors[0].shape[1])
        if shape != (target.d_out, target.d_in):
            raise ArgumentError(
                f"update: got a change of shape {shape}, expected "
                f"({target.d_out}, {target.d_in}), that of {target.name}"
            )

    def __call__(self, inputs: Tensor, outputs: Tensor) -> Tensor:
        """Outputs of the changed weight, from inputs and outputs of the unchanged."""
        flat = (x.reshape(-1, x.shape[-1]) for x in (inputs, outputs))
        rows = [torch.split(x, ROWS) for x in flat]
        with undisturbed(), torch.no_grad():
            changed = [self._of_rows(x, y) for x, y in zip(*rows, strict=True)]
            return torch.cat(changed).view(outputs.shape)

    def _of_rows(self, inputs: Tensor, outputs: Tensor) -> Tensor:
        added = inputs.float()
        for factor in self._factors:
            added = added @ factor.T
        return (outputs + added).to(outputs.dtype)
