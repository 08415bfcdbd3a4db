# SPDX-License-Identifier: Apache-2.0
"""Scores of many utterances, before and after late layers change."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cintervene.evaluate.phases import Step
from cintervene.models.capture import LayerStream
from cintervene.models.targets import Decoder
from cintervene.models.utterances import Utterance

__all__ = ["Passes"]

# Utterances carried through the layers at a time; progress is told after each lot.
LOT = 64


class Passes:
    """Hidden states of utterances that wait below the first layer that will change.

    The layers below run once; `states` runs the others with the weights of the moment.

    Parameters
    ----------
    model : nn.Module
    utterances : sequence of Utterance
        At least one.
    first : int
        The first layer whose weights may change.
    decoder : Decoder
    step : Step
        Told the number of utterances that are done.
    """

    def __init__(
        self,
        model: nn.Module,
        utterances: Sequence[Utterance],
        first: int,
        decoder: Decoder,
        step: Step,
    ) -> None:
        # Like lengths side by side leave little padding.
        order = sorted(range(len(utterances)), key=lambda i: len(utterances[i].ids))
        self._streams = []
        for start in range(0, len(order), LOT):
            lot = [utterances[i] for i in order[start : start + LOT]]
            stream = LayerStream(
                model,
                [one.ids for one in lot],
                first,
                wanted=[one.positions for one in lot],
                decoder=decoder,
            )
            self._streams.append(stream)
            step(len(lot))
        sizes = [len(utterances[i].positions) for i in order]
        self._rows = _restoring(order, sizes)

    def states(self, step: Step) -> Tensor:
        """What the final norm reads where tokens matter, utterance by utterance.

        Returns
        -------
        Tensor
            (n, hidden) in the model's dtype; one row for each of the utterances'
            `targets`, in their order.
        """
        found = []
        for stream in self._streams:
            fork = stream.fork()
            fork.advance(fork.n_layers - 1)
            found.append(fork.hidden())
            step(1)
        states = torch.cat(found)
        return states[self._rows.to(states.device)]

    def __len__(self) -> int:
        """Steps that `states` takes."""
        return len(self._streams)


def _restoring(order: Sequence[int], sizes: Sequence[int]) -> Tensor:
    """Indices that bring the rows of reordered items back to the items' order."""
    items = torch.tensor(order).repeat_interleave(torch.tensor(sizes))
    return torch.argsort(items, stable=True)
