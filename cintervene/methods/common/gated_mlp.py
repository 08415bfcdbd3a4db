# SPDX-License-Identifier: Apache-2.0
"""The gated MLP of a layer, ``down(act(gate(x)) * up(x))``, neuron by neuron.

A neuron is a row of the gate projection, one of the up projection and a column of the
down projection. Where the gate's row finds nothing, the activation function closes and
the column is not added, however long it is: docs/methods/gate.md (1).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cintervene.models.offload import parameter_value
from cintervene.models.targets import Target
from cintervene.solvers.update import LowRankUpdate
from cintervene.utils.arrays import Floats

__all__ = [
    "Block",
    "GatedMLP",
    "Neurons",
    "Rows",
    "as_stored",
    "at_places",
    "constant_direction",
    "scatter",
]

# Inputs whose activations are computed at a time: there are thousands of each, and some
# arrays of them.
BLOCK = 1024
# Squared coefficients of the constant beside the mean squared error of it, for inputs
# with a mean square about 1.
CONSTANT_RIDGE = 0.064
CPU = torch.device("cpu")


@dataclass(frozen=True, eq=False)
class Block(Target):
    """An MLP as a whole, which has no weight of its own."""

    @property
    def dtype(self) -> torch.dtype:
        """Type of what it takes and returns."""
        dtype: torch.dtype = next(self.module.parameters()).dtype
        return dtype


@dataclass(frozen=True, eq=False)
class Rows:
    """One row of a projection for each neuron.

    Attributes
    ----------
    target : Target
        The projection.
    rows : range
        The neurons' rows in their order: all of them, or half where one matrix is gate
        and up projection in one.
    """

    target: Target
    rows: range

    @property
    def dtype(self) -> torch.dtype:
        """Storage type of the rows."""
        return self.target.dtype

    def matrix(self, which: Sequence[int]) -> Tensor:
        """The rows (neurons, hidden) of some neurons in float32."""
        # Chosen before they are widened: all of a large matrix are half a gigabyte.
        return _stored(self.target)[self._places][list(which)].float()

    def bias(self, which: Sequence[int]) -> Tensor:
        """What is added to the products (neurons,) of some neurons, in float32."""
        module = self.target.module
        if getattr(module, "bias", None) is None:
            return torch.zeros(len(which), device=self.target.device)
        bias = parameter_value(module, "bias").detach()
        return bias[self._places][list(which)].float()

    @property
    def _places(self) -> slice:
        return slice(self.rows.start, self.rows.stop, self.rows.step)


@dataclass(frozen=True, eq=False)
class Neurons:
    """What some neurons make of inputs, in float32.

    Attributes
    ----------
    gate, up : Tensor, shape (neurons, hidden)
        Rows of the projections.
    gate_bias, up_bias : Tensor, shape (neurons,)
        Biases of the projections at these rows.
    """

    gate: Tensor
    up: Tensor
    gate_bias: Tensor
    up_bias: Tensor

    @property
    def parts(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """All of it, in the order above."""
        return self.gate, self.up, self.gate_bias, self.up_bias

    def to(self, device: torch.device) -> Neurons:
        """The same on a device."""
        return Neurons(*(part.to(device) for part in self.parts))

    def beside(self, others: Neurons) -> Neurons:
        """These and others."""
        pairs = zip(self.parts, others.parts, strict=True)
        return Neurons(*map(torch.cat, pairs))


@dataclass(frozen=True, eq=False)
class GatedMLP:
    """The MLP of one layer and its matrices.

    Attributes
    ----------
    block : Block
        What enters the MLP and what it returns.
    gate, up : Rows
        Of two matrices, or of one.
    down : Target
    activation : callable
        Acts on each number by itself.
    """

    block: Block
    gate: Rows
    up: Rows
    down: Target
    activation: Callable[[Tensor], Tensor]

    def activations(self, inputs: Tensor, neurons: Neurons) -> Tensor:
        """What neurons make of inputs, which their columns are multiplied with.

        Parameters
        ----------
        inputs : Tensor, shape (..., hidden)
        neurons : Neurons

        Returns
        -------
        Tensor, shape (..., neurons)
            In float32.
        """
        inputs, here = inputs.float(), neurons.to(inputs.device)
        gate = inputs @ here.gate.T + here.gate_bias
        opened: Tensor = self.activation(gate) * (inputs @ here.up.T + here.up_bias)
        return opened

    def idlest(self, inputs: Tensor, count: int) -> list[int]:
        """The neurons whose columns add least to what the MLP returns.

        Parameters
        ----------
        inputs : Tensor, shape (n, hidden)
            What enters the block.
        count : int
        """
        # Not at a time with all of the MLP.
        squares = matrix_of(self.down).to(inputs.device).square().sum(dim=0)
        every = self.neurons(range(self.down.d_in), inputs.device)
        sizes = [
            self.activations(inputs[at : at + BLOCK], every).square().sum(dim=0)
            for at in range(0, len(inputs), BLOCK)
        ]
        added = torch.stack(sizes).sum(dim=0) * squares
        return sorted(added.argsort()[:count].tolist())

    def neurons(self, which: Sequence[int], device: torch.device = CPU) -> Neurons:
        """The neurons as they are.

        Parameters
        ----------
        which : sequence of int
        device : torch.device, optional
            Where they are to be.
        """
        both = self.gate, self.up
        rows = (one.matrix(which) for one in both)
        biases = (one.bias(which) for one in both)
        return Neurons(*rows, *biases).to(device)

    def columns(self, which: Sequence[int]) -> Tensor:
        """What neurons add where their activation is 1, (neurons, hidden), on the CPU.

        In float32.
        """
        return _stored(self.down)[:, list(which)].float().T.cpu()

    def replaced(
        self, places: Sequence[int], gate: Tensor, up: Tensor, down: Tensor
    ) -> list[tuple[Target, LowRankUpdate]]:
        """The changes of the matrices that give neurons other rows and columns.

        Biases stay as they are. Where a column is longer than the matrix's own, a power
        of two of it moves to the neuron's row of the up projection: see `_evened`.

        Parameters
        ----------
        places : sequence of int
            Which neurons.
        gate, up : Tensor, shape (neurons, hidden)
        down : Tensor, shape (neurons, hidden)
            What each neuron adds to what the MLP returns where its activation is 1.
        """
        old = self.neurons(places)
        up, down = self._evened(up.cpu(), down.cpu(), old.up_bias)
        pairs = ((gate, old.gate), (up, old.up), (down, self.columns(places)))
        moved = [(new.cpu() - before).double().numpy() for new, before in pairs]
        gate_rows, up_rows = (
            at_places([half.rows[place] for place in places], half.target.d_out)
            for half in (self.gate, self.up)
        )
        opening = LowRankUpdate(gate_rows, moved[0])
        wide = LowRankUpdate(up_rows, moved[1])
        if self.gate.target.name == self.up.target.name:
            changes = [(self.gate.target, opening + wide)]
        else:
            changes = [(self.gate.target, opening), (self.up.target, wide)]
        columns = LowRankUpdate(moved[2].T, at_places(places, self.down.d_in).T)
        return [*changes, (self.down, columns)]

    def _evened(self, up: Tensor, down: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Rows times powers of two and columns over them, which changes no output.

        Quantisers give weights of a row one scale for all or for a group. A column that
        is a hundred times as long as its neighbours would leave nothing of them; a long
        row of the up projection has its scales for itself. A bias is not multiplied, so
        where there is one both stay as they are.
        """
        usual = matrix_of(self.down).abs().amax(dim=0).median().cpu()
        longer = down.abs().amax(dim=1) / usual
        powers = longer.clamp_min(1.0).log2().ceil().nan_to_num(0.0, 0.0, 0.0)
        powers = powers.where(bias == 0.0, torch.zeros_like(powers))
        factors = torch.exp2(powers)[:, None]
        return up * factors, down / factors


def at_places(places: Sequence[int], size: int) -> Floats:
    """One column of length `size` for each place, 1 there and 0 elsewhere."""
    columns = np.zeros((size, len(places)))
    columns[list(places), np.arange(len(places))] = 1.0
    return columns


def matrix_of(target: Target) -> Tensor:
    """The (d_out, d_in) matrix of a target in float32."""
    return _stored(target).float()


def _stored(target: Target) -> Tensor:
    """The same in its own type; not copied."""
    weight = target.weight.detach()
    return weight.T if target.transposed else weight


def scatter(inputs: npt.NDArray[np.floating], about: Floats | float = 0.0) -> Floats:
    """Sum of the outer products (d, d) of thousands of inputs (n, d) less `about`.

    Some at a time: all of them in float64 are large.
    """
    total = np.zeros((inputs.shape[1], inputs.shape[1]))
    for at in range(0, len(inputs), BLOCK):
        part = inputs[at : at + BLOCK].astype(np.float64) - about
        total += part.T @ part
    return total


def constant_direction(inputs: npt.NDArray[np.floating]) -> Floats:
    """What makes 1 of inputs (n, d), by least squares with a ridge.

    Some models' MLPs read inputs of about 1, some a thousandth or a thousand times
    that. A power of two as their unit loses nothing.
    """
    gram = scatter(inputs) / len(inputs)
    unit = 2.0 ** round(math.log2(math.sqrt(np.diag(gram).mean())))
    gram[np.diag_indices_from(gram)] += CONSTANT_RIDGE * unit**2
    mean = inputs.mean(axis=0, dtype=np.float64)
    direction: Floats = np.linalg.solve(gram, mean)
    return direction


def as_stored(rows: Tensor, dtype: torch.dtype) -> Tensor:
    """Rows in float32, rounded as a model of that type holds them."""
    return rows.to(dtype).float()
