# SPDX-License-Identifier: Apache-2.0
"""The gated MLP of a layer, ``down(act(gate(x)) * up(x))``, neuron by neuron.

A neuron is a row of the gate projection, one of the up projection and a column of the
down projection. Where the gate's row finds nothing, the activation function closes and
the column is not added, however long it is: docs/methods/gate.md (1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from cintervene.errors import ModelError
from cintervene.models.blocks import holds_matrix, parent
from cintervene.models.decoder import Decoder
from cintervene.models.targets import Target, plain_targets, targets_of
from cintervene.models.trace import Call, evaluating
from cintervene.solvers.update import LowRankUpdate

__all__ = ["GatedMLP", "find_gated_mlp"]

# Where an activation function that gates is open and where it is closed.
FAR = 20.0
# Inputs whose activations are computed at a time: there are thousands of each.
BLOCK = 4096


@dataclass(frozen=True, eq=False)
class Block(Target):
    """An MLP as a whole, which has no weight of its own."""

    @property
    def dtype(self) -> torch.dtype:
        """Type of what it takes and returns."""
        dtype: torch.dtype = next(self.module.parameters()).dtype
        return dtype


@dataclass(frozen=True, eq=False)
class GatedMLP:
    """The MLP of one layer and its three matrices.

    Attributes
    ----------
    block : Block
        What enters the MLP and what it adds to the residual stream.
    gate, up, down : Target
    activation : nn.Module
    """

    block: Block
    gate: Target
    up: Target
    down: Target
    activation: nn.Module

    def activations(self, inputs: Tensor, gate: Tensor, up: Tensor) -> Tensor:
        """What neurons with rows `gate` and `up` make of inputs.

        Parameters
        ----------
        inputs : Tensor, shape (..., hidden)
        gate, up : Tensor, shape (neurons, hidden)

        Returns
        -------
        Tensor, shape (..., neurons)
            In float32.
        """
        inputs = inputs.float()
        opened: Tensor = self.activation(inputs @ gate.T) * (inputs @ up.T)
        return opened

    def idlest(self, inputs: Tensor, count: int) -> list[int]:
        """The neurons that add least to the residual stream.

        Parameters
        ----------
        inputs : Tensor, shape (n, hidden)
            What enters the block.
        count : int
        """
        gate, up, down = (
            _matrix(target).to(inputs.device)
            for target in (self.gate, self.up, self.down)
        )
        sizes = [
            self.activations(inputs[at : at + BLOCK], gate, up).square().sum(dim=0)
            for at in range(0, len(inputs), BLOCK)
        ]
        size = torch.stack(sizes).sum(dim=0)
        added = size * down.square().sum(dim=0)
        return sorted(added.argsort()[:count].tolist())

    def neurons(self, which: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Rows of gate and up projection and columns of the down projection.

        Returns
        -------
        gate, up, down : Tensor, shape (neurons, hidden)
            In float32, on the CPU.
        """
        chosen = list(which)
        gate, up, down = (
            _matrix(target).cpu() for target in (self.gate, self.up, self.down)
        )
        return gate[chosen], up[chosen], down[:, chosen].T

    def replaced(
        self, neurons: Sequence[int], gate: Tensor, up: Tensor, down: Tensor
    ) -> list[tuple[Target, LowRankUpdate]]:
        """The changes of the three matrices that give neurons other rows and columns.

        Parameters
        ----------
        neurons : sequence of int
        gate, up : Tensor, shape (neurons, hidden)
        down : Tensor, shape (neurons, hidden)
            What each neuron adds to the residual stream where its activation is 1.
        """
        which = np.zeros((self.down.d_in, len(neurons)))
        which[list(neurons), np.arange(len(neurons))] = 1.0
        new = (gate, up, down)
        rows, wide, columns = (
            (after.cpu() - before).double().numpy()
            for after, before in zip(new, self.neurons(neurons), strict=True)
        )
        return [
            (self.gate, LowRankUpdate(which, rows)),
            (self.up, LowRankUpdate(which, wide)),
            (self.down, LowRankUpdate(columns.T, which.T)),
        ]


def find_gated_mlp(decoder: Decoder, layer: int) -> GatedMLP:
    """Find the gated MLP of a layer.

    Raises
    ------
    ModelError
        The layer's MLP is not gated, is built of other parts, has biases, or a norm
        follows it.
    """
    (down,) = targets_of(decoder, [layer], "down_proj")
    name = down.name.rpartition(".")[0]
    path = name.rpartition(".")[0]
    calls = [call for call in decoder.calls if parent(call) == path]
    last = next(call for call in calls if call.name == name)
    gate, activation, up = _gating(calls, last, path)
    if down.after is not None:
        raise ModelError(
            f"{path}: what the MLP returns passes a {type(down.after).__name__} before "
            "it is added to the residual stream, so that what a neuron adds depends on "
            'the others; method "tsr" takes such models'
        )
    for call in (gate, up, last):
        if getattr(call.module, "bias", None) is not None:
            raise ModelError(f"{call.name}: has a bias; expected a matrix alone")
    opening, beside = plain_targets(decoder, [gate, up], layer)
    whole = decoder.model.get_submodule(path)
    width = decoder.hidden_size
    block = Block(layer, path, whole, width, width, transposed=False)
    return GatedMLP(block, opening, beside, down, activation.module)


def _gating(calls: Sequence[Call], last: Call, path: str) -> tuple[Call, Call, Call]:
    """The gate's projection, the activation function and the other projection."""
    wide = [
        call
        for call in calls
        if holds_matrix(call.module) and call.y.shape == last.x.shape
    ]
    functions = [call for call in calls if not holds_matrix(call.module)]
    for activation in functions:
        for gate in wide:
            for up in wide:
                if (
                    up is not gate
                    and torch.equal(activation.x, gate.y)
                    and torch.allclose(activation.y * up.y, last.x, rtol=0.02)
                    and _gates(activation.module, last.x)
                ):
                    return gate, activation, up
    raise ModelError(
        f"{path}: expected a gated MLP, down(act(gate(x)) * up(x)), with an activation "
        "function that closes, each a module of its own; this one is built otherwise"
    )


def _gates(activation: nn.Module, like: Tensor) -> bool:
    """Whether an activation function leaves large numbers and drops negative ones."""
    with evaluating(activation):
        far = activation(torch.tensor([-FAR, FAR]).to(like)).float()
    return bool(far[0].abs() < 0.01) and bool((far[1] - FAR).abs() < 0.1)


def _matrix(target: Target) -> Tensor:
    """The (d_out, d_in) matrix of a target in float32."""
    weight = target.weight.detach().float()
    return weight.T if target.transposed else weight
