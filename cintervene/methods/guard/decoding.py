# SPDX-License-Identifier: Apache-2.0
"""What a guard adds to transformers' `generate`.

The model's own probabilities are bounded in the model, whoever calls it. `generate`
changes them afterwards: by temperature, guidance, biases, and by beams that rank
improbable tokens too. So under a guard it does not choose a token that completes a
word.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import UnbatchedClassifierFreeGuidanceLogitsProcessor

from cintervene.methods.guard.automaton import WordAutomaton

__all__ = ["add_mask", "generating", "remove_mask"]

_METHOD = "_get_logits_processor"


class WordMask:
    """A logits processor: tokens that complete a word cannot be chosen."""

    def __init__(self, automaton: WordAutomaton) -> None:
        self._automaton = automaton

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores (batch, vocabulary) without those tokens.

        A row in which nothing else is left, for other code forbids all of it, stays as
        it is.
        """
        scores = scores.clone()
        recent = input_ids[:, -self._automaton.reach :].tolist()
        for row, history in enumerate(recent):
            complete = torch.tensor(self._automaton.completing(history)).long()
            # A draft may be written with another, smaller vocabulary.
            complete = complete[complete < scores.shape[1]]
            masked = scores[row].clone()
            masked[complete.to(scores.device)] = -torch.inf
            if not torch.isneginf(masked).all():
                scores[row] = masked
        return scores


def generating(model: nn.Module) -> nn.Module:
    """The module whose `generate` calls itself, which adapters wrap."""
    for module in model.modules():
        if hasattr(type(module), _METHOD):
            return module
    return model


def add_mask(model: nn.Module, automaton: WordAutomaton) -> None:
    """Let `model.generate` choose no token that completes a word."""
    if hasattr(type(model), _METHOD):
        setattr(model, _METHOD, partial(_with_mask, model, WordMask(automaton)))


def remove_mask(model: nn.Module) -> None:
    """Take back what `add_mask` did."""
    vars(model).pop(_METHOD, None)


def _with_mask(model: Any, mask: WordMask, *args: Any, **kwargs: Any) -> Any:
    """The processors of one generation, and the mask.

    It stands before those that leave out all but the best tokens, which could leave
    only what it takes, and behind all, for some put finite scores for infinite ones.
    Guidance compares with another run of the model, whose scores are not masked, so it
    comes first.
    """
    processors = getattr(type(model), _METHOD)(model, *args, **kwargs)
    # Continuous batching packs sequences, and does not say which tokens are whose.
    if "input_ids_seq_length" in kwargs:
        guided = processors and isinstance(
            processors[0], UnbatchedClassifierFreeGuidanceLogitsProcessor
        )
        processors.insert(int(bool(guided)), mask)
        processors.append(mask)
    return processors
