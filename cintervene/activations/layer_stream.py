# SPDX-License-Identifier: Apache-2.0
"""Inputs and outputs of projections, for little more than a forward pass.

An intervention changes layer after layer, each on the activations that the changes
before it produce. Running the model anew for every layer would cost a forward pass
each; here the layers below the first changed one are run once, and then each layer
once. What a change of a down projection does to its layer's output is added afterwards
from the projection's kept inputs, so attention and the rest of the MLP are not computed
again.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from cintervene.activations.batches import Positions, check_sequences, resolve_positions
from cintervene.activations.lower_layers import LowerLayers
from cintervene.activations.output_change import OutputChange
from cintervene.activations.stream_batches import (
    Arrival,
    Arrived,
    StreamBatch,
    arrive,
)
from cintervene.errors import ArgumentError, ModelError
from cintervene.models.decoder import Decoder, resolve_layers
from cintervene.models.offload import device_of
from cintervene.models.resident import in_turn, resident
from cintervene.models.targets import Target, explanation_of
from cintervene.models.trace import (
    Hook,
    adds_to_output,
    evaluating,
    first_tensor,
    hooked,
)
from cintervene.solvers.update import LowRankUpdate
from cintervene.utils.literals import Matrix
from cintervene.utils.progress import Step
from cintervene.utils.ranks import deal, deal_in_rounds, world

__all__ = ["Asked", "Captured", "LayerStream", "Sink", "Span", "finals"]

# Called with inputs and outputs of rows.
Sink = Callable[[Tensor, Tensor], None]

# See `LayerStream`.
BATCH_TOKENS, KEEP_BYTES = 2048, 1 << 28


class Span(Protocol):
    """A sequence of which some positions matter."""

    @property
    def ids(self) -> Sequence[int]:
        """Token ids."""

    @property
    def positions(self) -> Sequence[int]:
        """Those that matter."""


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

    def on_host(self) -> Captured:
        """The same where the solvers read, in the model's dtype still."""
        return replace(self, inputs=self.inputs.cpu(), outputs=self.outputs.cpu())


@dataclass(frozen=True, eq=False)
class Asked:
    """Spans for a stream.

    Attributes
    ----------
    spans : sequence of Span
    wanted : sequence of (sequence of int or slice), optional
        See `LayerStream`; the positions that matter in the spans without it.
    streamed : sequence of (sequence of int or slice), optional
    keep_bytes : int
        See `LayerStream`.
    """

    spans: Sequence[Span]
    wanted: Sequence[Positions] | None = None
    streamed: Sequence[Positions] | None = None
    keep_bytes: int = KEEP_BYTES

    @property
    def chosen(self) -> Sequence[Positions]:
        """The wanted positions."""
        if self.wanted is not None:
            return self.wanted
        return [span.positions for span in self.spans]


class LayerStream:
    """Hidden states of many sequences, carried through the decoder layer by layer.

    Parameters
    ----------
    decoder : Decoder
        Of the model, whose weights are not changed.
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
    entered : callable, optional
        Called with the number of sequences of each batch that has come to `first`.
    matrix : {"down_proj", "o_proj"}
        Which projection of each layer is watched or changed; see `find_targets`.
    block : Target, optional
        What is watched in its layer in place of that, such as a whole MLP.

    Raises
    ------
    ArgumentError
        A sequence is empty, too long, or holds an id outside the vocabulary; a position
        is outside its sequence.

    Examples
    --------
    >>> decoder = ci.models.find_decoder(model)
    >>> wanted = [[-1]] * len(sequences)
    >>> stream = LayerStream(decoder, sequences, first=26, wanted=wanted)
    >>> for layer in (26, 27, 28, 29):
    ...     rows = stream.run(layer)
    ...     update = ci.pcr(rows.inputs, rows.outputs, concepts, radius).update
    ...     stream.advance(layer, update)
    """

    def __init__(
        self,
        decoder: Decoder,
        sequences: Sequence[Sequence[int]],
        first: int,
        *,
        wanted: Sequence[Positions] | None = None,
        streamed: Sequence[Positions] | None = None,
        batch_tokens: int = BATCH_TOKENS,
        keep_bytes: int = KEEP_BYTES,
        entered: Step | None = None,
        matrix: Matrix = "down_proj",
        block: Target | None = None,
    ) -> None:
        arrival = self._prepare(
            decoder, sequences, first, wanted, streamed, matrix, block, batch_tokens,
            keep_bytes,
        )  # fmt: skip
        _arrive([self], [arrival], entered)

    def _prepare(
        self,
        decoder: Decoder,
        sequences: Sequence[Sequence[int]],
        first: int,
        wanted: Sequence[Positions] | None,
        streamed: Sequence[Positions] | None,
        matrix: Matrix,
        block: Target | None,
        batch_tokens: int = BATCH_TOKENS,
        keep_bytes: int = KEEP_BYTES,
    ) -> Arrival:
        """Do all but go through the layers below, and say what is to go."""
        self._decoder, self._keep_bytes = decoder, keep_bytes
        self.n_layers = decoder.n_layers
        self.layer = resolve_layers([first], self.n_layers)[0]
        above = explanation_of(decoder, range(self.layer, self.n_layers), matrix)
        self._targets = {target.layer: target for target in above.targets}
        self._refused = above.refused
        if block is not None:
            self._targets[block.layer] = block
        self._additive: dict[int, bool] = {}
        ids = check_sequences(sequences, decoder.model)
        return Arrival(
            ids,
            resolve_positions("wanted", wanted, ids),
            resolve_positions("streamed", streamed, ids),
            batch_tokens,
        )

    def _start(self, arrived: Arrived) -> None:
        """Go on with what has come to the first layer."""
        self._batches, self._rows = arrived.batches, arrived.rows
        self._probe = arrived.probe
        order = torch.tensor([index for index, _ in self._rows], dtype=torch.int64)
        self._order = torch.argsort(order, stable=True)

    @classmethod
    def of(
        cls,
        decoder: Decoder,
        spans: Sequence[Span],
        first: int,
        *,
        wanted: Sequence[Positions] | None = None,
        streamed: Sequence[Positions] | None = None,
        entered: Step | None = None,
        matrix: Matrix = "down_proj",
        block: Target | None = None,
        keep_bytes: int = KEEP_BYTES,
    ) -> LayerStream:
        """Stream spans, with the rows wanted at the positions that matter in them.

        Parameters
        ----------
        decoder : Decoder
        spans : sequence of Span
            `TargetSpan`s, for example.
        first, streamed, entered, matrix, block, keep_bytes
            See `LayerStream`.
        wanted : sequence of (sequence of int or slice), optional
            Other positions than those that matter.
        """
        asked = Asked(spans, wanted, streamed, keep_bytes)
        (stream,) = cls.several(
            decoder, [asked], first, entered=entered, matrix=matrix, block=block
        )
        return stream

    @classmethod
    def several(
        cls,
        decoder: Decoder,
        asked: Sequence[Asked],
        first: int,
        *,
        entered: Step | None = None,
        matrix: Matrix = "down_proj",
        block: Target | None = None,
    ) -> list[LayerStream]:
        """Stream spans apart that come to the first layer together.

        Offloaded layers below that are read once for all of them.

        Parameters
        ----------
        decoder : Decoder
        asked : sequence of Asked
            A stream each.
        first, entered, matrix, block
            See `LayerStream`.
        """
        streams = [cls.__new__(cls) for _ in asked]
        arrivals = [
            stream._prepare(
                decoder, [span.ids for span in one.spans], first, one.chosen,
                one.streamed, matrix, block, keep_bytes=one.keep_bytes,
            )
            for stream, one in zip(streams, asked, strict=True)
        ]  # fmt: skip
        _arrive(streams, arrivals, entered)
        return streams

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
        layer = self._reach(layer)
        target = self._target(layer)
        work = partial(self._watched_rows, target=target, streamed=sink is not None)
        inputs, outputs, room = [], [], self._keep_bytes
        found = deal_in_rounds(f"layer {layer}", self._batches, work)
        with resident(self._decoder.layers[layer]):
            for batch in self._batches:
                size, wanted, streamed = next(found)
                # Of all ranks together: what is run anew is rounded otherwise.
                room -= size
                if batch is not None and room < 0:
                    batch.kept = None
                x, y = self._back(wanted, layer)
                inputs.append(x)
                outputs.append(y)
                if sink is not None and len(streamed[0]):
                    sink(*self._back(streamed, layer))
                # The next batch runs without these rows beside it.
                del wanted, streamed
        rows = torch.tensor(self._rows, dtype=torch.int64).reshape(-1, 2)[self._order]
        return Captured(
            target.layer,
            self._ordered(torch.cat(inputs)),
            self._ordered(torch.cat(outputs)),
            rows[:, 0],
            rows[:, 1],
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
            change = OutputChange(update, self._target(layer))
        with resident(self._decoder.layers[layer]):
            if change is not None and layer not in self._additive:
                self._additive[layer] = self._adds_to_output(self._target(layer))
            self._leave(layer, change)

    def hidden(self) -> Tensor:
        """Return the wanted rows of the hidden state that enters the current layer.

        Past the last layer that is what the final norm reads.

        Returns
        -------
        Tensor
            (n, hidden) in the model's dtype, rows as in `Captured`.
        """
        below = min(self.layer, self.n_layers - 1)
        found = deal(
            f"states before layer {self.layer}", self._batches,
            _wanted_states,
        )  # fmt: skip
        return self._ordered(torch.cat([self._back(x, below)[0] for x in found]))

    def final(self) -> Tensor:
        """Return the wanted rows of what the final norm reads, by present weights.

        The stream stays where it is.

        Returns
        -------
        Tensor
            (n, hidden) in the model's dtype, rows as in `Captured`.
        """
        (states,) = finals([self])
        return states

    def adds_block(self) -> bool:
        """Whether what the current layer's block returns is added to its output."""
        return self._adds_to_output(self._target(self.layer))

    def beside(self) -> Tensor:
        """Return the wanted rows of what leaves the current layer without its block.

        Where that `adds_block`, it is what the block's output is added to. The stream
        stays where it is.

        Returns
        -------
        Tensor
            (n, hidden) in the model's dtype, rows as in `Captured`.
        """
        target = self._target(self.layer)

        def without(batch: StreamBatch | None) -> list[Tensor]:
            assert batch is not None, "it is another rank's"
            left = self._hooked(batch, target, lambda _m, _args, y: torch.zeros_like(y))
            return [batch.wanted.of(left)]

        found = deal(f"states beside layer {self.layer}", self._batches, without)
        return self._ordered(torch.cat([self._back(x, self.layer)[0] for x in found]))

    def fork(self, keep_bytes: int | None = None) -> LayerStream:
        """Return an independent stream at the same layer; it shares the tensors.

        Parameters
        ----------
        keep_bytes : int, optional
            The fork's own: 0 where no change will be seen in it.
        """
        other = copy.copy(self)
        if keep_bytes is not None:
            other._keep_bytes = keep_bytes
        other._batches = [batch and batch.fork() for batch in self._batches]
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
        _pass([self], layer)
        return layer

    def _is_run(self) -> bool:
        """Whether all batches of this rank have been through the current layer."""
        return all(b is None or b.output is not None for b in self._batches)

    def _leave(self, layer: int, change: OutputChange | None = None) -> None:
        """Go past the current layer."""
        for batch in self._batches:
            if batch is not None:
                batch.hidden = self._changed_output(batch, layer, change)
                batch.output = batch.kept = None
                del batch.arguments[layer]
        self.layer = layer + 1

    def _watched_rows(
        self, batch: StreamBatch | None, target: Target, streamed: bool
    ) -> tuple[int, list[Tensor], list[Tensor]]:
        """Run the layer; bytes of all inputs, and the wanted and streamed rows."""
        assert batch is not None, "it is another rank's"
        batch.output, x, y = self._watched(batch, target)
        batch.kept = x
        both = [batch.wanted, batch.streamed] if streamed else [batch.wanted]
        wanted, *rest = [[rows.of(x), rows.of(y)] for rows in both]
        return x.nbytes, wanted, rest[0] if rest else []

    def _back(self, rows: list[Tensor], layer: int) -> list[Tensor]:
        """Rows on the device that a layer is on; from ranks they come by the host."""
        if world() == 1:
            return rows
        device = device_of(self._decoder.layers[layer])
        return [x.to(device) for x in rows]

    def _ordered(self, rows: Tensor) -> Tensor:
        return rows[self._order.to(rows.device)]

    def _call(self, batch: StreamBatch, layer: int) -> Tensor:
        """Run a layer; what leaves it."""
        module = self._decoder.layers[layer]
        args, kwargs = batch.arguments[layer]
        with evaluating(module):
            output = first_tensor(module(batch.hidden, *args, **kwargs))
        assert output is not None
        return output

    def _hooked(self, batch: StreamBatch, target: Target, hook: Hook) -> Tensor:
        """Run the layer of a projection with a hook on that."""
        with hooked(target.module, hook):
            return self._call(batch, target.layer)

    def _watched(
        self, batch: StreamBatch, target: Target
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run the layer; its output, and the projection's inputs and outputs."""
        passed: list[tuple[Tensor, Tensor]] = []

        def watch(_module: nn.Module, args: Any, y: Tensor) -> None:
            # Some layers go on to change what a projection returned, in place.
            passed.append((args[0], y.clone()))

        output = self._hooked(batch, target, watch)
        x, y = passed[-1]
        # What stands beside experts is called with the tokens of all rows in one.
        places = batch.hidden.shape[:2]
        return output, x.reshape(*places, -1), y.reshape(*places, -1)

    def _adds_to_output(self, target: Target) -> bool:
        """Tell whether the layer's output is its projection's output plus the rest."""
        return target.ends_layer and adds_to_output(
            lambda hook: self._hooked(self._probe, target, hook)
        )

    def _changed_output(
        self, batch: StreamBatch, layer: int, change: OutputChange | None
    ) -> Tensor:
        """What leaves the layer, run again only where that is needed."""
        if change is None:
            return self._call(batch, layer) if batch.output is None else batch.output
        if (
            batch.output is not None
            and batch.kept is not None
            and self._additive[layer]
        ):
            return change(batch.kept, batch.output)
        return self._hooked(
            batch, self._targets[layer], lambda _module, args, y: change(args[0], y)
        )


def finals(streams: Sequence[LayerStream]) -> list[Tensor]:
    """`LayerStream.final` of streams that are before the same layer.

    An offloaded layer is read once for all of them.
    """
    ahead = [stream.fork() for stream in streams]
    _pass(ahead, ahead[0].n_layers)
    return [stream.hidden() for stream in ahead]


def _arrive(
    streams: Sequence[LayerStream], arrivals: Sequence[Arrival], entered: Step | None
) -> None:
    """Bring streams to the layer that all of them begin at."""
    lower = LowerLayers(streams[0]._decoder, streams[0].layer)
    for stream, arrived in zip(streams, arrive(lower, arrivals, entered), strict=True):
        stream._start(arrived)


def _pass(streams: Sequence[LayerStream], until: int) -> None:
    """Bring streams from the layer that all are before to a later one, unchanged."""
    first = streams[0].layer
    if first < until and all(stream._is_run() for stream in streams):
        # It need not be read again.
        for stream in streams:
            stream._leave(first)
        first += 1
    layers = list(streams[0]._decoder.layers)[first:until]
    with closing(in_turn(layers)) as turns:
        for layer, _ in enumerate(turns, first):
            for stream in streams:
                stream._leave(layer)


def _wanted_states(batch: StreamBatch | None) -> list[Tensor]:
    assert batch is not None, "it is another rank's"
    return [batch.wanted.of(batch.hidden)]
