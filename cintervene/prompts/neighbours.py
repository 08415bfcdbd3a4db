# SPDX-License-Identifier: Apache-2.0
"""Words that a model's unembedding holds nearest to others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cintervene import data
from cintervene.models.unembedding import Unembedding
from cintervene.prompts.spelling import encode_text

__all__ = ["neighbours"]

# With what tokenizers write the space before a word.
SPACES = "Ġ▁ "
# Letters of the shortest word, and of a stem that two forms of one word share.
SHORTEST, STEM = 4, 4


def neighbours(
    unembedding: Unembedding, tokenizer: Any, words: Sequence[str], each: int
) -> list[str]:
    """Find words near some in the unembedding that are no forms of them.

    Parameters
    ----------
    unembedding : Unembedding
    tokenizer
    words : sequence of str
    each : int
        How many for each word, at most; no word is found twice.
    """
    candidates = _whole_words(tokenizer, unembedding.weight.shape[0], words)
    if not candidates or each == 0:
        return []
    texts, tokens = list(candidates), list(candidates.values())
    rows = _directions(unembedding, [[token] for token in tokens])
    asked = _directions(
        unembedding, [encode_text(tokenizer, " " + word) for word in words]
    )
    centre = rows.mean(dim=0)
    rows, asked = (
        torch.nn.functional.normalize(part - centre, dim=1) for part in (rows, asked)
    )
    order = (asked @ rows.T).argsort(dim=1, descending=True, stable=True)
    found: dict[str, None] = {}
    for nearest in order[:, : each * len(words)].tolist():
        new = [texts[place] for place in nearest if texts[place] not in found]
        found.update(dict.fromkeys(new[:each]))
    return list(found)


def _whole_words(tokenizer: Any, count: int, words: Sequence[str]) -> dict[str, int]:
    """Words of one token, without those that share a stem with one of `words`."""
    stems = {data.caseless(word)[:STEM] for word in words}
    names = tokenizer.convert_ids_to_tokens(list(range(min(count, len(tokenizer)))))
    return {
        name[1:]: token
        for token, name in enumerate(names)
        if isinstance(name, str)
        and name[:1] in SPACES
        and len(name) > SHORTEST
        and name[1:].isalpha()
        and name[1:].islower()
        and not any(stem in name for stem in stems)
    }


def _directions(unembedding: Unembedding, tokens: Sequence[Sequence[int]]) -> Tensor:
    """The mean direction of each group of tokens, (groups, hidden)."""
    flat = [token for group in tokens for token in group]
    owners = torch.tensor([i for i, group in enumerate(tokens) for _ in group])
    rows = unembedding.directions(flat)
    total = torch.zeros(len(tokens), rows.shape[1], device=rows.device)
    return total.index_add_(0, owners.to(rows.device), rows)
