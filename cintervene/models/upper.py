# SPDX-License-Identifier: Apache-2.0
"""The part of a model that depends on the change of one layer, differentiable.

What enters the changed projection does not depend on its change, nor do keys and values
at tokens where the change does nothing. Both are computed once. What is left to run,
and to differentiate, are the layers above, at the other tokens, and the unembedding at
the rows that a loss looks at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cintervene.models.batches import check_sequences, group_by_length
from cintervene.models.heads import SIMILAR, HeadGroup, Heads
from cintervene.models.lower import Arguments, LowerLayers
from cintervene.models.targets import Decoder, Target
from cintervene.models.trace import (
    Hook,
    adds_to_output,
    evaluating,
    evaluation_mode,
    first_tensor,
)
from cintervene.models.unembedding import Unembedding

__all__ = ["Upper", "UpperBatch", "differentiable"]


@dataclass(eq=False)
class UpperBatch:
    """Some sequences, padded on the right, as they are when they reach the change.

    Attributes
    ----------
    sequences : list of int
        Which of the sequences given, in the order of the rows.
    group : HeadGroup
        Where their heads are.
    rows : Tensor
        And in which of its rows.
    inputs : Tensor
        (batch, length, d_in) inputs of the projection.
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
    group: HeadGroup
    rows: Tensor
    inputs: Tensor
    real: Tensor
    wanted: Tensor
    owners: Tensor
    hidden: Tensor
    arguments: dict[int, Arguments]


class Upper:
    """Sequences at the changed layer, and the way from there to the last hidden state.

    Parameters
    ----------
    model : nn.Module
    target : Target
        The projection that will be changed.
    sequences : sequence of sequence of int
        Token ids.
    splits : sequence of int
        How many tokens of each sequence come before those at which the change is
        looked at; fewer than it has. At these heads it is taken to do nothing.
    wanted : sequence of sequence of int
        For each sequence the positions that `states` returns, none in the head.
    decoder : Decoder
    batch_tokens : int
        Largest number of tokens in a batch.

    Attributes
    ----------
    batches : list of UpperBatch
    heads : Heads
    """

    def __init__(
        self,
        model: nn.Module,
        target: Target,
        sequences: Sequence[Sequence[int]],
        splits: Sequence[int],
        wanted: Sequence[Sequence[int]],
        decoder: Decoder,
        batch_tokens: int = 1024,
    ) -> None:
        self._decoder, self._target = decoder, target
        ids = check_sequences(sequences, model)
        heads = [tuple(one[:n]) for one, n in zip(ids, splits, strict=True)]
        tails = [one[n:] for one, n in zip(ids, splits, strict=True)]
        places = [[p - n for p in one] for one, n in zip(wanted, splits, strict=True)]
        different = list(dict.fromkeys(heads))
        self.heads = Heads(decoder, target, different, max(map(len, ids)), batch_tokens)
        lower = LowerLayers(decoder, target.layer)
        entering = [
            self._enter(lower, tails, places, members, group, rows)
            for group in self.heads.groups
            for members, rows in _batches(group, different, heads, tails, batch_tokens)
        ]
        for group in self.heads.groups:
            group.forget(target.layer)
        self.additive = self._adds_to_output(entering[0])
        self.batches = [self._reach(batch) for batch in entering]

    def states(self, batch: UpperBatch, change: Tensor | None) -> Tensor:
        """What the final norm reads at the wanted rows of a batch.

        Parameters
        ----------
        batch : UpperBatch
            One of `batches`.
        change : Tensor or None
            (d_in, d_out) float32, the transposed change of the weight.

        Returns
        -------
        Tensor
            (n, hidden) in the model's dtype.
        """
        hidden = self._leave(batch, change)
        for layer in range(self._target.layer + 1, len(self._decoder.layers)):
            hidden = self._call(batch, layer, hidden)
        return hidden.reshape(-1, hidden.shape[-1])[batch.wanted]

    def _leave(self, batch: UpperBatch, change: Tensor | None) -> Tensor:
        """What leaves the changed layer."""
        if self.additive:
            if change is None:
                return batch.hidden
            moved = batch.hidden + _displacement(batch.inputs, change)
            return moved.to(batch.hidden.dtype)

        def add(_module: nn.Module, args: Any, y: Tensor) -> Tensor:
            return y if change is None else (y + _displacement(args[0], change)).to(y)

        return self._watched(batch, add)

    def _enter(
        self,
        lower: LowerLayers,
        tails: Sequence[list[int]],
        wanted: Sequence[Sequence[int]],
        members: list[int],
        group: HeadGroup,
        rows: Tensor,
    ) -> UpperBatch:
        lengths = torch.tensor([len(tails[i]) for i in members])
        length = int(lengths.max())
        # Any token will do as padding.
        padded = [tails[i] + tails[i][:1] * (length - len(tails[i])) for i in members]
        mask = torch.ones((len(members), length), dtype=torch.int64)
        mask = torch.cat([group.mask[rows], mask], dim=1)
        hidden, arguments = lower.call(
            padded, self._target.layer, group.past(rows), mask
        )
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

        with torch.no_grad():
            left = self._watched(batch, watch)
        if self.additive:
            batch.hidden = left
            del batch.arguments[self._target.layer]
        return batch

    def _watched(self, batch: UpperBatch, hook: Hook) -> Tensor:
        """Run the layer of the projection with a hook on that."""
        handle = self._target.module.register_forward_hook(hook)
        try:
            return self._call(batch, self._target.layer, batch.hidden)
        finally:
            handle.remove()

    def _call(self, batch: UpperBatch, layer: int, hidden: Tensor) -> Tensor:
        args, kwargs = batch.group.renew(batch.arguments[layer], batch.rows, layer)
        output = first_tensor(self._decoder.layers[layer](hidden, *args, **kwargs))
        assert output is not None
        return output

    def _adds_to_output(self, batch: UpperBatch) -> bool:
        """Whether the layer's output is its projection's output plus the rest."""
        with evaluating(self._decoder.layers[self._target.layer]):
            return adds_to_output(lambda hook: self._watched(batch, hook))


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
    logits: Tensor = (unembedding.norm(hidden) @ weight.T).float()
    return unembedding.capped(logits)


def _batches(
    group: HeadGroup,
    different: Sequence[tuple[int, ...]],
    heads: Sequence[tuple[int, ...]],
    tails: Sequence[Sequence[int]],
    batch_tokens: int,
) -> Iterator[tuple[list[int], Tensor]]:
    """Sequences whose heads are in a group, some at a time, and their heads' rows."""
    row = {different[head]: at for at, head in enumerate(group.members)}
    members = [index for index, head in enumerate(heads) if head in row]
    lengths = [len(tails[i]) for i in members]
    for part in group_by_length(lengths, batch_tokens, SIMILAR):
        chosen = [members[i] for i in part]
        yield chosen, torch.tensor([row[heads[i]] for i in chosen])


def _displacement(inputs: Tensor, change: Tensor) -> Tensor:
    moved: Tensor = inputs.float() @ change
    return moved
