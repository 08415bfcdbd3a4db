# SPDX-License-Identifier: Apache-2.0
"""How natural answers are to a model: their perplexity, prompt by prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from cintervene.evaluate.scores import item_sums
from cintervene.models.capture import LayerStream
from cintervene.models.conversation import render
from cintervene.models.scoring import token_nll
from cintervene.models.spelling import encode_text
from cintervene.models.targets import find_decoder
from cintervene.models.unembedding import find_unembedding

__all__ = ["perplexities"]


def perplexities(
    model: nn.Module, tokenizer: Any, prompts: Sequence[str], answers: Sequence[str]
) -> npt.NDArray[np.float64]:
    """Perplexity of each answer to its prompt.

    Parameters
    ----------
    model : nn.Module
        The base: the model before it was defended.
    tokenizer : Any
    prompts, answers : sequence of str
        As many of one as of the other.

    Returns
    -------
    ndarray, shape (n,), float64
        1 for answers without a token, which have nothing to be surprised at.

    Raises
    ------
    ArgumentError
        A prompt with its answer is longer than the model's context.
    """
    asked = [render(tokenizer, prompt) for prompt in prompts]
    said = [encode_text(tokenizer, answer) for answer in answers]
    found = np.ones(len(said))
    spoken = [index for index, tokens in enumerate(said) if tokens]
    if not spoken:
        return found
    sizes = np.array([len(said[index]) for index in spoken], dtype=np.float64)
    wanted = [
        range(len(asked[index]) - 1, len(asked[index]) + len(said[index]) - 1)
        for index in spoken
    ]
    decoder = find_decoder(model)
    sequences = [asked[index] + said[index] for index in spoken]
    last = len(decoder.layers) - 1
    hidden = LayerStream(model, sequences, last, wanted=wanted, decoder=decoder).final()
    targets = torch.tensor([token for index in spoken for token in said[index]])
    nats = token_nll(find_unembedding(model, decoder), hidden, targets)
    with np.errstate(over="ignore"):
        found[spoken] = np.exp(item_sums(nats, sizes) / sizes)
    return found
