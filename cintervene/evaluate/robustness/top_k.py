# SPDX-License-Identifier: Apache-2.0
"""Whether a word is still among the top k next tokens where it could be said."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from cintervene.activations.next_token import next_logits
from cintervene.models.parts import ModelParts
from cintervene.prompts.target_spans import TargetSpan

__all__ = ["ranks"]


def ranks(model: nn.Module, spans: Sequence[TargetSpan]) -> npt.NDArray[np.int64]:
    """Rank of the most likely first token of each span's word.

    All surface forms count, with and without a space. ``(ranks(...) <= k).mean()`` is
    the share of places where the word is among the top k.

    Parameters
    ----------
    model : nn.Module
    spans : sequence of TargetSpan
        Of words (`word_spans`), at least one.

    Returns
    -------
    ndarray, shape (n,), int64
        1 where the model says the word next.
    """
    logits = next_logits(
        ModelParts.find(model), [one.ids[: one.start] for one in spans]
    )
    result = []
    for row, one in zip(logits, spans, strict=True):
        best = row[torch.tensor(sorted(one.openings), device=row.device)].max()
        result.append(int((row > best).sum()) + 1)
    return np.array(result, dtype=np.int64)
