# SPDX-License-Identifier: Apache-2.0
"""The part of a model that depends on changes of some layers, differentiable.

What enters the lowest changed projection does not depend on a change, nor do keys and
values at tokens where the changes do nothing. Both are computed once. What is left to
run, and to differentiate, are the layers above, at the other tokens, and the
unembedding at the rows that a loss looks at.

Batches are planned as if there was one rank; each rank runs and keeps its own, and what
comes of them is exchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from cintervene.activations.batches import check_sequences, group_by_length, padded
from cintervene.activations.lower_layers import LowerLayers
from cintervene.activations.prefix_cache import SIMILAR, PrefixCache, PrefixGroup
from cintervene.models.compiled import EAGER
from cintervene.models.decoder import Decoder
from cintervene.models.replay import Arguments
from cintervene.models.surroundings import undisturbed
from cintervene.models.targets import Target
from cintervene.models.trace import (
    Hook,
    adds_to_output,
    evaluating,
    evaluation_mode,
    first_tensor,
    gain_of_output,
    hooked,
)
from cintervene.models.unembedding import Unembedding
from cintervene.utils.lazy import lazy
from cintervene.utils.ranks import deal_in_rounds, is_own, of_one, world

__all__ = [
    "Changes",
    "UpperBatch",
    "UpperLayers",
    "changed",
    "differentiable",
    "logits_of",
]

R = TypeVar("R")
# The transposed change (d_in, d_out) of each target's weight, float32; None for none.
Changes = Sequence[Tensor] | None
# Called with the number of a target, its inputs and its changed outputs.
Watch = Callable[[int, Tensor, Tensor], None]


@dataclass(eq=False)
class UpperBatch:
    """Some sequences, padded on the right, as they are when they reach the change.

    Attributes
    ----------
    sequences : list of int
        Which of the sequences given, in the order of the rows.
    group : PrefixGroup or None
        Where their prefixes are; None where another rank runs the batch, which has no
        inputs, hidden states and arguments then.
    rows : Tensor
        And in which of its rows.
    inputs : Tensor
        (batch, length, d_in) inputs of the lowest changed projection.
    real : Tensor
        (batch, length), False where a row is padding.
    wanted : Tensor
        Flat indices into (batch * length) of the rows that a loss looks at.
    owners : Tensor
        To which sequence each of them belongs, as an index into all given.
    hidden : Tensor
        (batch, length, hidden) what leaves the layer when nothing is changed, or what
        enters it where the projection's output is not simply added to that.
    arguments : dict of int to Arguments
        What each layer is called with besides.
    """

    sequences: list[int]
    group: PrefixGroup | None
    rows: Tensor
    inputs: Tensor
    real: Tensor
    wanted: Tensor
    owners: Tensor
    hidden: Tensor
    arguments: dict[int, Arguments]

    @property
    def is_here(self) -> bool:
        """Whether it is this rank's."""
        return self.group is not None


class UpperLayers:
    """Sequences at the lowest changed layer, and from there to the last hidden state.

    Parameters
    ----------
    decoder : Decoder
    targets : sequence of Target
        The projections that will be changed, one a layer, lowest first.
    sequences : sequence of sequence of int
        Token ids.
    prefix_lengths : sequence of int
        How many tokens of each sequence come before those at which the changes are
        looked at; fewer than it has. At these prefixes they are taken to do nothing.
    wanted : sequence of sequence of int
        For each sequence the positions that `states` returns, none in the prefix.
    batch_tokens : int
        Largest number of tokens in a batch.
    above : bool
        False where `states` will not be asked for: prefixes are run no further than the
        lowest changed layer.
    turn : int
        Batch i is the work of rank i + turn, modulo their number.

    Attributes
    ----------
    batches : list of UpperBatch
    prefixes : PrefixCache
    """

    def __init__(
        self,
        decoder: Decoder,
        targets: Sequence[Target],
        sequences: Sequence[Sequence[int]],
        prefix_lengths: Sequence[int],
        wanted: Sequence[Sequence[int]],
        batch_tokens: int = 1024,
        above: bool = True,
        turn: int = 0,
    ) -> None:
        self._decoder, self._targets, self._turn = decoder, list(targets), turn
        self._lowest = targets[0].layer
        self._at = {target.layer: index for index, target in enumerate(targets)}
        ids = check_sequences(sequences, decoder.model)
        pairs = list(zip(ids, prefix_lengths, strict=True))
        prefixes = self._prefix_ids = [tuple(one[:n]) for one, n in pairs]
        tails = [one[n:] for one, n in pairs]
        places = [
            [position - n for position in positions]
            for positions, n in zip(wanted, prefix_lengths, strict=True)
        ]
        different = list(dict.fromkeys(prefixes))
        self.prefixes = PrefixCache(
            decoder, targets, different, max(map(len, ids)), batch_tokens,
            decoder.n_layers if above else self._lowest + 1,
        )  # fmt: skip
        plan = [
            (number, members, rows)
            for number, group in enumerate(self.prefixes.members)
            for members, rows in _batches(
                group, different, prefixes, tails, batch_tokens
            )
        ]
        self.prefixes.run([
            [at + turn for at, (other, _, _) in enumerate(plan) if other == number]
            for number in range(len(self.prefixes.members))
        ])  # fmt: skip
        lower = LowerLayers(decoder, self._lowest)
        entering = [
            self._enter(
                lower, tails, places, members,
                self.prefixes.groups[number] if is_own(at + turn) else None, rows,
            )
            for at, (number, members, rows) in enumerate(plan)
        ]  # fmt: skip
        for group in self.prefixes.groups:
            if group is not None:
                group.forget(self._lowest)
        adds = partial(self._adds_to_output, entering[0])
        self.additive = of_one("whether a layer adds its projection", adds, turn)
        self.batches = [
            self._reach(batch) if batch.is_here else batch for batch in entering
        ]

    def deal(
        self, what: str, work: Callable[[int, UpperBatch], R]
    ) -> Iterator[tuple[UpperBatch, R]]:
        """Each batch and what comes of it, in their order; all ranks do their own.

        Parameters
        ----------
        what : str
            See `ranks.exchange`.
        work : callable
            Called with the number of a batch and the batch.
        """
        found = deal_in_rounds(what, self.pieces(), lambda one: one and work(*one))
        for one, result in zip(self.pieces(), found, strict=True):
            if one is not None:
                yield one[1], cast(R, result)

    def pieces(self, behind: int = 0) -> list[tuple[int, UpperBatch] | None]:
        """The batches with their numbers, for `ranks.deal`.

        Parameters
        ----------
        behind : int
            How many pieces of work come first. Some None stand before the first batch,
            so that each piece is the work of the rank that has it.
        """
        idle = (self._turn - behind) % world()
        return [*[None] * idle, *enumerate(self.batches)]

    def states(
        self, batch: UpperBatch, changes: Changes, watch: Watch | None = None
    ) -> Tensor:
        """What the final norm reads at the wanted rows of a batch.

        Parameters
        ----------
        batch : UpperBatch
            One of `batches`.
        changes : sequence of Tensor or None
            (d_in, d_out) float32, the transposed change of each target's weight.
        watch : callable, optional
            Called with the index of a target, its inputs and its outputs as changed,
            at all tokens behind the prefixes.

        Returns
        -------
        Tensor
            (n, hidden) in the model's dtype.
        """
        hidden = self._leave(batch, changes, watch)
        for layer in range(self._lowest + 1, self._decoder.n_layers):
            if layer in self._at and (changes is not None or watch is not None):
                hook = _shift(self._at[layer], changes, watch)
                hidden = self._watched(batch, layer, hidden, hook)
            else:
                hidden = self._call(batch, layer, hidden)
        rows = batch.wanted.to(hidden.device)
        return hidden.reshape(-1, hidden.shape[-1])[rows]

    def _leave(
        self, batch: UpperBatch, changes: Changes, watch: Watch | None
    ) -> Tensor:
        """What leaves the lowest changed layer."""
        if not self.additive:
            hook = _shift(0, changes, watch, batch.inputs)
            return self._watched(batch, self._lowest, batch.hidden, hook)
        if changes is None and watch is None:
            return batch.hidden
        hidden = batch.hidden
        if changes is not None:
            moved = hidden + _displacement(batch.inputs, changes[0])
            hidden = moved.to(batch.hidden.dtype)
        if watch is not None:
            # A shift of the projection's output is one of what leaves the layer.
            hidden = hidden if hidden.requires_grad else hidden.clone().requires_grad_()
            watch(0, batch.inputs, hidden)
        return hidden

    @lazy
    def gain(self) -> float:
        """How far what leaves the lowest changed layer moves with its projection's.

        See `gain_of_output`.
        """
        if self.additive:
            return 1.0
        return of_one("how far a layer's output moves", self._gain, self._turn)

    def _gain(self) -> float:
        batch = self.batches[0]
        with evaluating(self._decoder.layers[self._lowest]):
            return gain_of_output(
                lambda hook: self._watched(batch, self._lowest, batch.hidden, hook)
            )

    def _enter(
        self,
        lower: LowerLayers,
        tails: Sequence[list[int]],
        wanted: Sequence[Sequence[int]],
        members: list[int],
        group: PrefixGroup | None,
        rows: Tensor,
    ) -> UpperBatch:
        lengths = torch.tensor([len(tails[i]) for i in members])
        length = int(lengths.max())
        rest = padded([tails[i] for i in members])
        arguments: dict[int, Arguments] = {}
        if group is None:
            hidden = torch.empty(0)
        elif self.prefixes.plain:
            mask = torch.ones((len(members), length), dtype=torch.int64)
            mask = torch.cat([group.mask[rows], mask], dim=1)
            past = group.past(rows, slice(self._lowest))
            hidden, arguments = lower.call(rest, self._lowest, past, mask)
            # Of keys and values only those above are needed again, of the group's own.
            if past is not None:
                past.layers.clear()
        else:
            begun = [self._prefix_ids[i] for i in members]
            whole = [[*a, *b] for a, b in zip(begun, rest, strict=True)]
            hidden, arguments = lower.call(whole, self._lowest)
            hidden = hidden[:, len(begun[0]) :]
        pairs = [
            (at * length + p, i) for at, i in enumerate(members) for p in wanted[i]
        ]
        flat, owners = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).unbind(1)
        real = torch.arange(length) < lengths[:, None]
        place = hidden.device
        return UpperBatch(
            members, group, rows, torch.empty(0), real.to(place), flat.to(place),
            owners, hidden, arguments,
        )  # fmt: skip

    def _reach(self, batch: UpperBatch) -> UpperBatch:
        """Run up to the projection; keep what does not depend on the change."""

        def watch(_module: nn.Module, args: Any, _y: Tensor) -> None:
            batch.inputs = args[0]

        with undisturbed(), torch.no_grad():
            left = self._watched(batch, self._lowest, batch.hidden, watch)
        if self.additive:
            batch.hidden = left
            del batch.arguments[self._lowest]
        return batch

    def _watched(
        self, batch: UpperBatch, layer: int, hidden: Tensor, hook: Hook
    ) -> Tensor:
        """Run a layer with a hook on its target."""
        assert batch.group is not None, "it is another rank's"
        hook = _behind(batch.group.length, len(hidden), hook)
        with hooked(self._targets[self._at[layer]].module, hook):
            return self._call(batch, layer, hidden)

    def _call(self, batch: UpperBatch, layer: int, hidden: Tensor) -> Tensor:
        assert batch.group is not None, "it is another rank's"
        args, kwargs = batch.group.renew(batch.arguments[layer], batch.rows, layer)
        begun = batch.group.entering.get(layer)
        if begun is not None:
            hidden = torch.cat([begun[batch.rows.to(begun.device)], hidden], dim=1)
        output = first_tensor(self._decoder.layers[layer](hidden, *args, **kwargs))
        assert output is not None
        return output[:, batch.group.length :]

    def _adds_to_output(self, batch: UpperBatch) -> bool:
        """Whether the layer's output is its projection's output plus the rest."""
        if not self._targets[0].ends_layer:
            return False
        with evaluating(self._decoder.layers[self._lowest]):
            return adds_to_output(
                lambda hook: self._watched(batch, self._lowest, batch.hidden, hook)
            )


@contextmanager
def changed(targets: Sequence[Target], changes: Sequence[Tensor]) -> Iterator[None]:
    """Let the whole model run as if weights were changed, at all tokens, if it runs."""
    with ExitStack() as stack:
        stack.enter_context(EAGER)
        for index, target in enumerate(targets):
            hook = _shift(index, changes, None)
            stack.callback(target.module.register_forward_hook(hook).remove)
        yield


@contextmanager
def differentiable(model: nn.Module) -> Iterator[None]:
    """Evaluation mode with gradients, of activations only; as before afterwards."""
    wanting = [p for p in model.parameters() if p.requires_grad]
    try:
        for parameter in wanting:
            parameter.requires_grad_(False)
        with evaluation_mode(model), torch.enable_grad():
            yield
    finally:
        for parameter in wanting:
            parameter.requires_grad_(True)


def logits_of(unembedding: Unembedding, hidden: Tensor) -> Tensor:
    """Differentiable float32 logits (n, vocabulary) of last hidden states."""
    weight = unembedding.weight.detach()
    normed = unembedding.norm(hidden).to(weight.device)
    products: Tensor = (normed @ weight.T).float()
    return unembedding.from_products(products)


def _batches(
    group: Sequence[int],
    different: Sequence[tuple[int, ...]],
    prefixes: Sequence[tuple[int, ...]],
    tails: Sequence[Sequence[int]],
    batch_tokens: int,
) -> Iterator[tuple[list[int], Tensor]]:
    """Sequences with some prefixes, a part at a time, and which of these they have."""
    row = {different[index]: at for at, index in enumerate(group)}
    members = [index for index, prefix in enumerate(prefixes) if prefix in row]
    lengths = [len(tails[i]) for i in members]
    for part in group_by_length(lengths, batch_tokens, SIMILAR):
        chosen = [members[i] for i in part]
        yield chosen, torch.tensor([row[prefixes[i]] for i in chosen])


def _shift(
    index: int, changes: Changes, watch: Watch | None, inputs: Tensor | None = None
) -> Hook:
    """A hook that adds what a target's change does, and shows what comes of it.

    The change acts on `inputs`, where they are given.
    """

    def hook(_module: nn.Module, args: Any, y: Tensor) -> Tensor:
        read = args[0] if inputs is None else inputs
        if changes is not None:
            y = (y + _displacement(read, changes[index])).to(y.dtype)
        if watch is not None:
            y = y if y.requires_grad else y.clone().requires_grad_()
            watch(index, read, y)
        return y

    return hook


def _behind(length: int, batch: int, hook: Hook) -> Hook:
    """A hook that sees (batch, tokens, width), and no tokens of prefixes of a length.

    What stands beside experts is called with the tokens of all rows in one.
    """

    def behind(module: nn.Module, args: Any, y: Tensor) -> Tensor | None:
        x, whole = (z.reshape(batch, -1, z.shape[-1]) for z in (args[0], y))
        result = hook(module, (x[:, length:],), whole[:, length:])
        if result is None:
            return None
        return torch.cat([whole[:, :length], result], dim=1).reshape(y.shape)

    return behind


def _displacement(inputs: Tensor, change: Tensor) -> Tensor:
    moved: Tensor = inputs.float() @ change
    return moved
