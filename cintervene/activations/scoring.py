# SPDX-License-Identifier: Apache-2.0
"""What last hidden states say about tokens; logits never exist all at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cintervene.models.surroundings import undisturbed
from cintervene.models.unembedding import Unembedding, WideHead
from cintervene.models.weights import as_floats
from cintervene.solvers.losses import set_nll
from cintervene.utils.ranks import deal

__all__ = ["Divergence", "divergence", "likeliest", "logits_in_blocks", "token_nll"]

# Rows of logits held at a time: 256 x 50,000 float32 take 50 MB.
ROWS = 256
# What is kept of a base that others are compared with again and again.
KEPT_BYTES = 1 << 28


def logits_in_blocks(
    unembedding: Unembedding,
    hidden: Tensor,
    rows: int = ROWS,
    head: WideHead | None = None,
) -> Iterator[tuple[slice, Tensor]]:
    """Float32 logits of hidden states (n, hidden), some rows at a time.

    The head runs in float32 whatever the model's dtype: bfloat16 logits carry errors
    as large as the divergences that are measured with them.

    Parameters
    ----------
    unembedding : Unembedding
    hidden : Tensor
    rows : int
    head : WideHead, optional
        By who has it already.
    """
    logits = _head(unembedding, head)
    for part in _blocks(hidden, rows):
        yield part, logits(hidden[part])


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
    logits = _head(unembedding)

    def nll(part: slice) -> npt.NDArray[np.float64]:
        return set_nll(logits(hidden[part]).cpu(), tokens[part, None].numpy())

    found = deal("likelihoods of tokens", _blocks(hidden), nll)
    return np.concatenate([np.empty(0), *found])


def divergence(
    unembedding: Unembedding, base: Tensor, changed: Tensor
) -> npt.NDArray[np.float64]:
    """KL(base || changed) of the next token for each pair of hidden states.

    Returns
    -------
    ndarray, shape (n,), float64, nats
    """
    return Divergence(unembedding, base, room=0).of(changed)


class Divergence:
    """`divergence` from states that stay the same to others that come and go.

    Parameters
    ----------
    unembedding : Unembedding
    base : Tensor
        (n, hidden), what the final norm reads.
    room : int, default `KEPT_BYTES`
        For log-probabilities of the base, which are kept; beyond it they are computed
        each time.
    """

    def __init__(
        self, unembedding: Unembedding, base: Tensor, room: int = KEPT_BYTES
    ) -> None:
        self._unembedding, self._base = unembedding, base
        self._kept: dict[int, Tensor] = {}
        self._room = room

    def of(self, changed: Tensor) -> npt.NDArray[np.float64]:
        """KL(base || changed), shape (n,), float64, nats, for states (n, hidden)."""
        logits = _head(self._unembedding)

        def kl(part: slice) -> npt.NDArray[np.float64]:
            p = self._of_base(part, logits)
            q = torch.log_softmax(logits(changed[part]), dim=-1)
            return as_floats((p.exp() * (p - q)).sum(dim=-1))

        blocks = _blocks(self._base)
        return np.concatenate([np.empty(0), *deal("divergence", blocks, kl)])

    def _of_base(self, part: slice, logits: Callable[[Tensor], Tensor]) -> Tensor:
        """Log-probabilities (rows, vocabulary) of some states of the base."""
        known = self._kept.get(part.start)
        if known is not None:
            return known
        found = torch.log_softmax(logits(self._base[part]), dim=-1)
        self._room -= found.nbytes
        if self._room >= 0:
            self._kept[part.start] = found
        return found


def likeliest(
    unembedding: Unembedding, hidden: Tensor, count: int
) -> tuple[Tensor, Tensor]:
    """The most likely next tokens for each hidden state.

    Returns
    -------
    probabilities : Tensor, shape (n, count)
        Float32, 1 together. There are fewer where the vocabulary is smaller.
    tokens : Tensor, shape (n, count)
        Both on the CPU.
    """
    logits = _head(unembedding)
    count = min(count, len(unembedding.weight))

    def top(part: slice) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        values, tokens = logits(hidden[part]).topk(count, dim=-1)
        return torch.softmax(values, dim=-1).cpu().numpy(), tokens.cpu().numpy()

    found = deal("likeliest tokens", _blocks(hidden), top)
    probabilities, tokens = map(np.concatenate, zip(*found, strict=True))
    return torch.from_numpy(probabilities), torch.from_numpy(tokens)


def _blocks(hidden: Tensor, rows: int = ROWS) -> list[slice]:
    return [slice(start, start + rows) for start in range(0, len(hidden), rows)]


def _head(
    unembedding: Unembedding, head: WideHead | None = None
) -> Callable[[Tensor], Tensor]:
    """What makes float32 logits of hidden states."""
    wide = WideHead(unembedding.weight) if head is None else head

    def logits(hidden: Tensor) -> Tensor:
        with undisturbed(), torch.no_grad():
            normed = unembedding.norm(hidden).to(wide.device)
            return unembedding.from_products(wide.products(normed.float()))

    return logits
