# SPDX-License-Identifier: Apache-2.0
"""Losses of next tokens that torch differentiates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cintervene.losses import set_nll

__all__ = ["divergence_loss", "set_loss"]


class _SetNLL(torch.autograd.Function):
    """`cintervene.set_nll`, loss and gradient in one pass of the core."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, token_ids: Sequence[Sequence[int]]) -> Tensor:
        """Return the losses; keep the gradient."""
        losses, gradient = set_nll(logits.detach().cpu(), token_ids, grad=True)
        ctx.save_for_backward(torch.as_tensor(gradient).to(logits))
        return torch.from_numpy(losses).to(logits.device)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """Scale the kept gradient row by row."""
        (gradient,) = ctx.saved_tensors
        return gradient * grads[0][:, None].to(gradient), None


def set_loss(logits: Tensor, token_ids: Sequence[Sequence[int]]) -> Tensor:
    """Negative log probability of a set of tokens, for each row.

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
