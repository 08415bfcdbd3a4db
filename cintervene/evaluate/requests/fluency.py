# SPDX-License-Identifier: Apache-2.0
"""Fluency of answers: their perplexity under a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from cintervene.activations.next_token import answer_nll
from cintervene.models.parts import ModelParts
from cintervene.models.precision import quick_products
from cintervene.prompts.chat import render
from cintervene.prompts.spelling import encode_text

__all__ = ["answer_perplexities", "perplexities"]


def perplexities(
    model: nn.Module, tokenizer: Any, prompts: Sequence[str], answers: Sequence[str]
) -> npt.NDArray[np.float64]:
    """Perplexity of each answer to its prompt.

    Parameters
    ----------
    model : nn.Module
        The base model, without a defence.
    tokenizer : Any
    prompts, answers : sequence of str
        One answer for each prompt.

    Returns
    -------
    ndarray, shape (n,), float64
        1 for answers without a token.

    Raises
    ------
    ArgumentError
        There are none, or a prompt with its answer is longer than the model's context.
    """
    rendered = [render(tokenizer, prompt) for prompt in prompts]
    return answer_perplexities(ModelParts.find(model), tokenizer, rendered, answers)


@quick_products()
def answer_perplexities(
    parts: ModelParts,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[str],
) -> npt.NDArray[np.float64]:
    """`perplexities` of answers to rendered prompts, in a model with known parts."""
    answer_ids = [encode_text(tokenizer, answer) for answer in answers]
    nats = answer_nll(parts, prompts, answer_ids)
    return np.exp([one.mean() if one.size else 0.0 for one in nats])
