# SPDX-License-Identifier: Apache-2.0
"""What last hidden states say about tokens; logits never exist all at once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cintervene.models.surroundings import undisturbed
from cintervene.models.unembedding import Unembedding
from cintervene.models.weights import as_floats
from cintervene.solvers.losses import set_nll

__all__ = ["divergence", "logits_in_blocks", "token_nll"]

# Rows of logits held at a time: 256 x 50,000 float32 take 50 MB.
ROWS = 256


def logits_in_blocks(
    unembedding: Unembedding, hidden: Tensor, rows: int = ROWS
) -> Iterator[tuple[slice, Tensor]]:
    """Float32 logits of hidden states (n, hidden), some rows at a time.

    The head runs in float32 whatever the model's dtype: bfloat16 logits carry errors
    as large as the divergences that are measured with them.
    """
    weight = unembedding.weight.detach().float()
    for start in range(0, len(hidden), rows):
        part = slice(start, start + rows)
        # Not around the loop: a generator that pauses inside would leave gradients off.
        with undisturbed(), torch.no_grad():
            normed = unembedding.norm(hidden[part]).to(weight.device)
            logits = unembedding.from_products(normed.float() @ weight.T)
        yield part, logits


def token_nll(
    unembedding: Unembedding, hidden: Tensor, tokens: Tensor
) -> npt.NDArray[np.float64]:
    """-log p of one token for each hidden state.

    Parameters
    ----------
    unembedding : Unembedding
    hidden : Tensor
        (n, hidden), what the final norm reads.
    tokens : Tensor
        (n,) int64.

    Returns
    -------
    ndarray, shape (n,), float64, nats
    """
    nll = np.empty(len(hidden))
    for part, logits in logits_in_blocks(unembedding, hidden):
        nll[part] = set_nll(logits.cpu(), tokens[part, None].numpy())
    return nll


def divergence(
    unembedding: Unembedding, base: Tensor, changed: Tensor
) -> npt.NDArray[np.float64]:
    """KL(base || changed) of the next token for each pair of hidden states.

    Returns
    -------
    ndarray, shape (n,), float64, nats
    """
    kl = np.empty(len(base))
    pairs = zip(
        logits_in_blocks(unembedding, base),
        logits_in_blocks(unembedding, changed),
        strict=True,
    )
    for (part, before), (_, after) in pairs:
        p = torch.log_softmax(before, dim=-1)
        q = torch.log_softmax(after, dim=-1)
        kl[part] = as_floats((p.exp() * (p - q)).sum(dim=-1))
    return kl
