# SPDX-License-Identifier: Apache-2.0
"""A guard on the model's activations, as a defence that can be nested."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from cintervene.baselines.answering import Answerer, Generation
from cintervene.methods.guard.method import Guard
from cintervene.utils.lazy import lazy

__all__ = ["Guarded"]


@dataclass(frozen=True, eq=False)
class Guarded:
    """Another answerer, with a `Guard` on its model while it answers.

    Attributes
    ----------
    inner : Answerer
    model : nn.Module
        That of `inner`.
    tokenizer : Any
    words : sequence of str
        The forbidden words.
    strength : float, default 8.0
        See `Guard`.
    """

    inner: Answerer
    model: nn.Module
    tokenizer: Any
    words: Sequence[str]
    strength: float = 8.0

    @lazy
    def _guard(self) -> Guard:
        return Guard(
            self.model, self.tokenizer, forbid=self.words, strength=self.strength
        )

    def answer(
        self, prompts: Sequence[str], generation: Generation, seed: int = 0
    ) -> list[str]:
        """Answer each prompt; see `Answerer.answer`."""
        with self._guard:
            return self.inner.answer(prompts, generation, seed)
