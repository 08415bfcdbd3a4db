# SPDX-License-Identifier: Apache-2.0
"""Who answers the prompts that a calibration is made of."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

from torch import nn

from cintervene.prompts.chat import generate
from cintervene.utils.lazy import lazy
from cintervene.utils.progress import Step

__all__ = ["AnsweredTogether", "Answerer", "answerer"]

Prompts = Sequence[Sequence[int]]


class Answerer(Protocol):
    """Gives greedy answers of a model that stays as it is; see `generate`."""

    def __call__(
        self, prompts: Prompts, max_new_tokens: int, *, step: Step | None = None
    ) -> list[list[int]]:
        """New tokens only, up to and including the end of the answer."""


def answerer(model: nn.Module, tokenizer: Any) -> Answerer:
    """One that answers what it is asked as it is asked."""
    return partial(generate, model, tokenizer)


class AnsweredTogether:
    """An `Answerer` of what was foreseen, all of it in one batch.

    Each token of an answer takes a reading of an offloaded model, however many answers
    there are. They are cut to the length that is asked for: they are greedy, so that is
    what a shorter one would be but for rounding.

    Parameters
    ----------
    model : nn.Module
    tokenizer
    foreseen : sequence of (prompts, int)
        The calls to come: rendered prompts and `max_new_tokens`.
    """

    def __init__(
        self, model: nn.Module, tokenizer: Any, foreseen: Sequence[tuple[Prompts, int]]
    ) -> None:
        self._answer = answerer(model, tokenizer)
        self._prompts = list(
            dict.fromkeys(tuple(one) for prompts, _ in foreseen for one in prompts)
        )
        self._most = max(length for _, length in foreseen)

    @lazy
    def _answers(self) -> dict[tuple[int, ...], list[int]]:
        """Of all prompts, once the first of them are asked for."""
        found = self._answer(self._prompts, self._most)
        return dict(zip(self._prompts, found, strict=True))

    def __call__(
        self, prompts: Prompts, max_new_tokens: int, *, step: Step | None = None
    ) -> list[list[int]]:
        """The answers to some of the prompts, cut to that length."""
        answers = [self._answers[tuple(one)][:max_new_tokens] for one in prompts]
        if step is not None:
            step(len(prompts))
        return answers
