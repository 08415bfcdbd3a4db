# SPDX-License-Identifier: Apache-2.0
"""Inputs and outputs of projections, for little more than a forward pass.

An intervention changes layer after layer, each on the activations that the changes
before it produce. Running the model anew for every layer would cost a forward pass
each; here the layers below the first changed one are run once, and then each layer
once. What a change of a down projection does to its layer's output is added afterwards
from the projection's kept inputs, so attention and the rest of the MLP are not computed
again.

Sequences are padded on the right: under a causal mask no token sees the padding, so
neither masks nor shifted positions are needed, and padded rows are never handed out.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from cintervene.activations.batches import (
    Positions,
    check_sequences,
    group_by_length,
    resolve_positions,
)
from cintervene.activations.lower_layers import (
    Arguments,
    LowerLayers,
    Prefix,
)
from cintervene.errors import ArgumentError, ModelError
from cintervene.models.decoder import (
    Decoder,
    find_decoder,
    resolve_layers,
)
from cintervene.models.targets import Target, explain
from cintervene.models.trace import Hook, adds_to_output, evaluating, first_tensor
from cintervene.solvers.update import LowRankUpdate
from cintervene.utils.literals import Matrix

Sink = Callable[[Tensor, Tensor], None]


@dataclass(frozen=True, eq=False)
class Captured:
    """Rows of one layer's projection, sequence by sequence in the order asked for.

    Attributes
    ----------
    layer : int
    inputs : Tensor
        (n, d_in) in the model's dtype, on the model's device.
    outputs : Tensor
        (n, d_out), bias included.
    sequences, positions : Tensor
        (n,) int64, where each row comes from.
    """

    layer: int
    inputs: Tensor
    outputs: Tensor
    sequences: Tensor
    positions: Tensor


@dataclass(eq=False)
class _Rows:
    """Rows wanted from a batch: flat indices into (batch * length)."""

    flat: Tensor
    sequences: list[int]
    positions: list[int]

    def of(self, x: Tensor) -> Tensor:
        return x.reshape(-1, x.shape[-1])[self.flat.to(x.device)]


@dataclass(eq=False)
class _Batch:
    """One padded batch on its way through the layers.

    `hidden` enters the layer to come. After that layer was run, `output` is what left
    it and `kept` the inputs of its projection, if there was room to keep them.
    """

    wanted: _Rows
    streamed: _Rows
    hidden: Tensor
    arguments: dict[int, Arguments]
    output: Tensor | None = None
    kept: Tensor | None = None


@dataclass(eq=False)
class _Watch:
    """What passed a projection in the last call of its layer."""

    x: Tensor = field(default_factory=lambda: torch.empty(0))
    y: Tensor = field(default_factory=lambda: torch.empty(0))


class LayerStream:
    """Hidden states of many sequences, carried through the decoder layer by layer.

    Parameters
    ----------
    model : nn.Module
        A causal language model of transformers; its weights are not changed.
    sequences : sequence of sequence of int
        Token ids, none empty.
    first : int
        The first layer to be watched or changed. The layers below are run here, once.
    wanted : sequence of (sequence of int or slice), optional
        For each sequence the positions whose rows `run` returns; none without it.
    streamed : sequence of (sequence of int or slice), optional
        For each sequence the positions whose rows go to `run`'s sink; none without it.
    batch_tokens : int, default 2048
        Largest number of tokens in a batch, padding included.
    keep_bytes : int, default 2**28
        Room for kept inputs of one projection. Batches beyond it run a changed layer
        twice instead.
    decoder : Decoder, optional
        What `find_decoder(model)` returned, to save its probe.
    entered : callable, optional
        Called with the number of sequences of each batch that has come to `first`.
    matrix : {"down_proj", "o_proj"}
        Which projection of each layer is watched or changed; see `find_targets`.

    Raises
    ------
    ArgumentError
        A sequence is empty, too long, or holds an id outside the vocabulary; a position
        is outside its sequence.
    ModelError
        The decoder cannot be found.

    Examples
    --------
    >>> stream = LayerStream(model, sequences, first=26, wanted=[[-1]] * len(sequences))
    >>> for layer in (26, 27, 28, 29):
    ...     rows = stream.run(layer)
    ...     update = ci.pcr(rows.inputs, rows.outputs, concepts, radius).update
    ...     stream.advance(layer, update)
    """

    def __init__(
        self,
        model: nn.Module,
        sequences: Sequence[Sequence[int]],
        first: int,
        *,
        wanted: Sequence[Positions] | None = None,
        streamed: Sequence[Positions] | None = None,
        batch_tokens: int = 2048,
        keep_bytes: int = 1 << 28,
        decoder: Decoder | None = None,
        entered: Callable[[int], None] | None = None,
        matrix: Matrix = "down_proj",
    ) -> None:
        self._decoder = decoder or find_decoder(model)
        self.n_layers = len(self._decoder.layers)
        self.layer = resolve_layers([first], self.n_layers)[0]
        found = explain(model, range(self.layer, self.n_layers), self._decoder, matrix)
        self._targets = {target.layer: target for target in found.targets}
        self._refused = found.refused
        self._keep_bytes = keep_bytes
        self._additive: dict[int, bool] = {}
        ids = check_sequences(sequences, model)
        rows = (
            resolve_positions("wanted", wanted, ids),
            resolve_positions("streamed", streamed, ids),
        )
        lower = LowerLayers(self._decoder, self.layer)
        self._batches = []
        for prefix, group in _groups(lower, ids, batch_tokens):
            self._batches.append(_start(lower, prefix, ids, group, rows))
            if entered is not None:
                entered(len(group))
        probe = [sequence[:3] for sequence in ids[:1]]
        self._probe = _start(lower, None, probe, [0], ([[]], [[]]))
        order = [s for batch in self._batches for s in batch.wanted.sequences]
        self._order = torch.argsort(torch.tensor(order, dtype=torch.int64), stable=True)

    def run(self, layer: int, sink: Sink | None = None) -> Captured:
        """Run up to and including `layer`, unchanged, and return its wanted rows.

        Layers between the current one and `layer` are passed unchanged.

        Parameters
        ----------
        layer : int
            At least the current layer, `self.layer`.
        sink : callable, optional
            Called with (inputs, outputs) of the streamed rows of each batch, in a fixed
            order; nothing of them is kept here.

        Raises
        ------
        ArgumentError
            The layer has been passed already.
        ModelError
            The layer has no plain projection of the kind.
        """
        target = self._target(self._reach(layer))
        inputs, outputs, room = [], [], self._keep_bytes
        for batch in self._batches:
            batch.output, seen = self._run_layer(batch, target)
            inputs.append(batch.wanted.of(seen.x))
            outputs.append(batch.wanted.of(seen.y))
            if sink is not None and len(batch.streamed.flat):
                sink(batch.streamed.of(seen.x), batch.streamed.of(seen.y))
            room -= seen.x.nbytes
            batch.kept = seen.x if room >= 0 else None
        sequences = [s for batch in self._batches for s in batch.wanted.sequences]
        positions = [p for batch in self._batches for p in batch.wanted.positions]
        return Captured(
            target.layer,
            self._ordered(torch.cat(inputs)),
            self._ordered(torch.cat(outputs)),
            torch.tensor(sequences, dtype=torch.int64)[self._order],
            torch.tensor(positions, dtype=torch.int64)[self._order],
        )

    def advance(self, layer: int, update: LowRankUpdate | Tensor | None = None) -> None:
        """Go past `layer`, as changed by `update`.

        Parameters
        ----------
        layer : int
            The current layer or a later one; those between are passed unchanged.
        update : LowRankUpdate or Tensor, optional
            The change of the layer's (d_out, d_in) weight, in factors or whole. Give
            the rounded difference to see what the stored weights will do.
        """
        layer = self._reach(layer)
        change = None
        if update is not None:
            target = self._target(layer)
            change = _Change(update, target)
            if layer not in self._additive:
                self._additive[layer] = self._adds_to_output(target)
        for batch in self._batches:
            batch.hidden = self._changed_output(batch, layer, change)
            batch.output = batch.kept = None
            del batch.arguments[layer]
        self.layer = layer + 1

    def hidden(self) -> Tensor:
        """Return the wanted rows of the hidden state that enters the current layer.

        Past the last layer that is what the final norm reads.

        Returns
        -------
        Tensor
            (n, hidden) in the model's dtype, rows as in `Captured`.
        """
        return self._ordered(torch.cat([b.wanted.of(b.hidden) for b in self._batches]))

    def final(self) -> Tensor:
        """Return the wanted rows of what the final norm reads, by present weights.

        The stream stays where it is.

        Returns
        -------
        Tensor
            (n, hidden) in the model's dtype, rows as in `Captured`.
        """
        ahead = self.fork()
        ahead.advance(ahead.n_layers - 1)
        return ahead.hidden()

    def fork(self) -> LayerStream:
        """Return an independent stream at the same layer; it shares the tensors."""
        other = copy.copy(self)
        other._batches = [copy.copy(batch) for batch in self._batches]
        for batch in other._batches:
            batch.arguments = dict(batch.arguments)
        return other

    def _target(self, layer: int) -> Target:
        if layer in self._refused:
            raise ModelError(f"layer {layer} cannot be changed: {self._refused[layer]}")
        return self._targets[layer]

    def _reach(self, layer: int) -> int:
        layer = resolve_layers([layer], self.n_layers)[0]
        if layer < self.layer:
            raise ArgumentError(
                f"layer: got {layer}, expected {self.layer} or later; layers are done "
                "in order, start a new stream or fork one before going on"
            )
        while self.layer < layer:
            self.advance(self.layer)
        return layer

    def _ordered(self, rows: Tensor) -> Tensor:
        return rows[self._order.to(rows.device)]

    def _call(self, batch: _Batch, layer: int) -> Tensor:
        module = self._decoder.layers[layer]
        args, kwargs = batch.arguments[layer]
        with evaluating(module):
            output = first_tensor(module(batch.hidden, *args, **kwargs))
        assert output is not None
        return output

    def _run_layer(
        self,
        batch: _Batch,
        target: Target,
        change: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> tuple[Tensor, _Watch]:
        seen = _Watch()

        def watch(_module: nn.Module, args: Any, y: Tensor) -> Tensor | None:
            seen.x, seen.y = args[0], y
            return None if change is None else change(args[0], y)

        return self._hooked(batch, target, watch), seen

    def _hooked(self, batch: _Batch, target: Target, hook: Hook) -> Tensor:
        """Run the layer of a projection with a hook on that."""
        handle = target.module.register_forward_hook(hook)
        try:
            return self._call(batch, target.layer)
        finally:
            handle.remove()

    def _adds_to_output(self, target: Target) -> bool:
        """Tell whether the layer's output is its projection's output plus the rest."""
        return target.ends_layer and adds_to_output(
            lambda hook: self._hooked(self._probe, target, hook)
        )

    def _changed_output(
        self, batch: _Batch, layer: int, change: _Change | None
    ) -> Tensor:
        if change is None:
            return self._call(batch, layer) if batch.output is None else batch.output
        if (
            batch.output is not None
            and batch.kept is not None
            and self._additive[layer]
        ):
            return change(batch.kept, batch.output)
        return self._run_layer(batch, self._targets[layer], change)[0]


def _groups(
    lower: LowerLayers, ids: Sequence[Sequence[int]], batch_tokens: int
) -> Iterator[tuple[Prefix | None, list[int]]]:
    """Plan batches: of sequences that begin with the shared prefix, and of others."""
    prefix = lower.prefix(ids)
    begins = [prefix is not None and prefix.begins(one) for one in ids]
    for shared in dict.fromkeys((prefix, None)):
        members = [i for i, own in enumerate(begins) if own == (shared is not None)]
        for group in group_by_length([len(ids[i]) for i in members], batch_tokens):
            yield shared, [members[i] for i in group]


def _start(
    lower: LowerLayers,
    prefix: Prefix | None,
    ids: Sequence[Sequence[int]],
    group: Sequence[int],
    rows: tuple[list[list[int]], list[list[int]]],
) -> _Batch:
    hidden, arguments = lower.run([ids[index] for index in group], prefix)
    length = hidden.shape[1]
    wanted, streamed = (_flat(group, kind, length, hidden.device) for kind in rows)
    return _Batch(wanted, streamed, hidden, arguments)


class _Change:
    """Adds what a change of the weight adds to the projection's output."""

    def __init__(self, update: LowRankUpdate | Tensor, target: Target) -> None:
        parts = [update] if isinstance(update, Tensor) else [update.right, update.left]
        place = target.device
        self.factors = [torch.as_tensor(p).to(place, torch.float32) for p in parts]
        shape = (self.factors[-1].shape[0], self.factors[0].shape[1])
        if shape != (target.d_out, target.d_in):
            raise ArgumentError(
                f"update: got a change of shape {shape}, expected "
                f"({target.d_out}, {target.d_in}), that of {target.name}"
            )

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            moved = x.float()
            for factor in self.factors:
                moved = moved @ factor.T
            return (y + moved).to(y.dtype)


def _flat(
    group: Sequence[int],
    positions: Sequence[Sequence[int]],
    length: int,
    device: torch.device,
) -> _Rows:
    pairs = [
        (row, index, p) for row, index in enumerate(group) for p in positions[index]
    ]
    flat = torch.tensor([row * length + p for row, _, p in pairs], dtype=torch.int64)
    return _Rows(
        flat.to(device), [index for _, index, _ in pairs], [p for _, _, p in pairs]
    )
