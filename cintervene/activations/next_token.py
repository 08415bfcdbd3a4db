# SPDX-License-Identifier: Apache-2.0
"""What a model says about tokens of given sequences, in one pass without generation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cintervene.activations.batches import Positions
from cintervene.activations.layer_stream import LayerStream
from cintervene.activations.scoring import (
    logits_in_blocks,
    token_nll,
)
from cintervene.models.decoder import (
    Decoder,
    find_decoder,
)
from cintervene.models.unembedding import find_unembedding

__all__ = ["answer_nll", "next_logits"]


def next_logits(model: nn.Module, sequences: Sequence[Sequence[int]]) -> Tensor:
    """Logits of the token after each sequence.

    Parameters
    ----------
    model : nn.Module
    sequences : sequence of sequence of int
        Token ids, none empty.

    Returns
    -------
    Tensor, shape (n, vocabulary), float32

    Raises
    ------
    ArgumentError
        A sequence is empty, too long, or holds an id outside the vocabulary.
    """
    decoder = find_decoder(model)
    hidden = _hidden(model, decoder, sequences, [[-1]] * len(sequences))
    unembedding = find_unembedding(model, decoder)
    return torch.cat([logits for _, logits in logits_in_blocks(unembedding, hidden)])


def answer_nll(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
) -> list[npt.NDArray[np.float64]]:
    """-log p of each token of each answer to its prompt.

    Parameters
    ----------
    model : nn.Module
    prompts : sequence of sequence of int
        Token ids, none empty.
    answers : sequence of sequence of int
        As many; empty ones are allowed.

    Returns
    -------
    list of ndarray, float64, nats
        One for each answer, as long as the answer.

    Raises
    ------
    ArgumentError
        As `next_logits`.
    """
    decoder = find_decoder(model)
    pairs = list(zip(prompts, answers, strict=True))
    wanted = [range(len(p) - 1, len(p) + len(a) - 1) for p, a in pairs]
    hidden = _hidden(model, decoder, [[*p, *a] for p, a in pairs], wanted)
    tokens = torch.tensor([token for answer in answers for token in answer])
    nats = token_nll(find_unembedding(model, decoder), hidden, tokens.long())
    return np.split(nats, np.cumsum([len(answer) for answer in answers])[:-1])


def _hidden(
    model: nn.Module,
    decoder: Decoder,
    sequences: Sequence[Sequence[int]],
    wanted: Sequence[Positions],
) -> Tensor:
    """Last hidden states at the wanted positions, sequence by sequence."""
    last = len(decoder.layers) - 1
    stream = LayerStream(model, sequences, last, wanted=wanted, decoder=decoder)
    return stream.final()
