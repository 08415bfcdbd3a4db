# SPDX-License-Identifier: Apache-2.0
"""What a model says about tokens of given sequences, in one pass without generation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cintervene.activations.batches import Positions
from cintervene.activations.layer_stream import LayerStream
from cintervene.activations.scoring import logits_in_blocks, token_nll
from cintervene.models.parts import ModelParts

__all__ = ["answer_nll", "next_logits"]


def next_logits(parts: ModelParts, sequences: Sequence[Sequence[int]]) -> Tensor:
    """Logits of the token after each sequence.

    Parameters
    ----------
    parts : ModelParts
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
    hidden = _hidden(parts, sequences, [[-1]] * len(sequences))
    blocks = logits_in_blocks(parts.unembedding, hidden)
    return torch.cat([logits for _, logits in blocks])


def answer_nll(
    parts: ModelParts,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
) -> list[npt.NDArray[np.float64]]:
    """-log p of each token of each answer to its prompt.

    Parameters
    ----------
    parts : ModelParts
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
    pairs = list(zip(prompts, answers, strict=True))
    wanted = [range(len(p) - 1, len(p) + len(a) - 1) for p, a in pairs]
    hidden = _hidden(parts, [[*p, *a] for p, a in pairs], wanted)
    tokens = torch.tensor([token for answer in answers for token in answer])
    nats = token_nll(parts.unembedding, hidden, tokens.long())
    return np.split(nats, np.cumsum([len(answer) for answer in answers])[:-1])


def _hidden(
    parts: ModelParts,
    sequences: Sequence[Sequence[int]],
    wanted: Sequence[Positions],
) -> Tensor:
    """Last hidden states at the wanted positions, sequence by sequence."""
    last = parts.n_layers - 1
    return LayerStream(parts.decoder, sequences, last, wanted=wanted).final()
