# SPDX-License-Identifier: Apache-2.0
"""Losses of next tokens that torch differentiates."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cintervene.activations.upper_layers import UpperBatch
from cintervene.prompts.refusal_examples import REFUSAL_OPENING, TargetExample
from cintervene.solvers.losses import set_nll

__all__ = [
    "by_example",
    "divergence_loss",
    "refusal_loss",
    "refusal_reached",
    "set_loss",
    "target_sets",
]


class _SetNLL(torch.autograd.Function):
    """`cintervene.set_nll`, loss and gradient in one pass of the core."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, token_ids: Sequence[Sequence[int]]) -> Tensor:
        """Return the losses; keep the gradient, which is as large as the logits."""
        host = logits.detach().cpu()
        if ctx.needs_input_grad[0]:
            losses, gradient = set_nll(host, token_ids, grad=True)
            ctx.save_for_backward(torch.as_tensor(gradient).to(logits))
        else:
            losses = set_nll(host, token_ids)
        return torch.from_numpy(losses).to(logits.device)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """Scale the kept gradient row by row."""
        (gradient,) = ctx.saved_tensors
        return gradient * grads[0][:, None].to(gradient), None


def set_loss(logits: Tensor, token_ids: Sequence[Sequence[int]]) -> Tensor:
    """Negative log probability of a set of tokens, for each row.

    This is the loss of arXiv 2510.03567 (docs/methods/tsr.md (1)).

    Parameters
    ----------
    logits : Tensor
        (rows, vocabulary), floating point.
    token_ids : sequence of sequence of int
        One set for each row.

    Returns
    -------
    Tensor
        (rows,) float64, differentiable once.

    Raises
    ------
    ArgumentError, NonFiniteError
        As `cintervene.set_nll`.
    """
    sets = [np.asarray(tokens, dtype=np.int64) for tokens in token_ids]
    losses: Tensor = _SetNLL.apply(logits, sets)  # type: ignore[no-untyped-call]
    return losses


def divergence_loss(base: Tensor, changed: Tensor) -> Tensor:
    """KL(base || changed) of logits (rows, vocabulary), for each row (rows,)."""
    before = torch.log_softmax(base, dim=-1)
    after = torch.log_softmax(changed, dim=-1)
    return (before.exp() * (before - after)).sum(dim=-1)


def target_sets(
    examples: Sequence[TargetExample], batch: UpperBatch
) -> list[tuple[int, ...]]:
    """The tokens that are as good at each wanted row of a batch of the examples."""
    return [tokens for i in batch.sequences for tokens in examples[i].target_sets]


def by_example(batch: UpperBatch, losses: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Index of each example of a batch, and its part of the rows' losses."""
    for index in batch.sequences:
        yield index, losses[(batch.owners == index).to(losses.device)]


def refusal_reached(losses: Tensor) -> bool:
    """Whether the first tokens of a refusal, at these losses, are likelier than not."""
    return bool((losses[:REFUSAL_OPENING] <= math.log(2)).all())


def refusal_loss(
    examples: Sequence[TargetExample], batch: UpperBatch, losses: Tensor, first: float
) -> Tensor:
    """What a batch adds to the mean loss of the examples' refusals.

    The loss of a refusal is a weighted mean of its tokens' (docs/methods/tsr.md (2)).

    Parameters
    ----------
    examples : sequence of TargetExample
    batch : UpperBatch
        Of some of the examples.
    losses : Tensor, shape (rows,)
        Of the batch's wanted rows.
    first : float
        Share of a refusal's first token.
    """
    counts = [len(examples[i].target_sets) for i in batch.sequences]
    weights = torch.cat([_token_weights(count, first) for count in counts])
    total: Tensor = (losses * weights.to(losses.device)).sum()
    return total / len(examples)


def _token_weights(count: int, first: float) -> Tensor:
    """Shares of a refusal's tokens in its loss; `first` is that of the first."""
    weights = torch.full((count,), 1.0, dtype=torch.float64)
    if count > 1:
        weights *= (1 - first) / (count - 1)
        weights[0] = first
    return weights
