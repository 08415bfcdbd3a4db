# SPDX-License-Identifier: Apache-2.0
"""Defences of one model as a study runs them: named, timed, with or without weights."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

from torch import nn

from cintervene.baselines import Answerer, Generation
from cintervene.baselines.answering import answer_prefilled
from cintervene.intervention.intervention import Intervention
from cintervene.utils.json_ready import json_ready

__all__ = ["Clocked", "Defence"]

# Attributes of what stands around a model that are no settings.
PARTS = {"inner", "model", "tokenizer", "judge"}


class Clocked:
    """Another answerer, with a clock that tells how long it has been at work.

    Put around the bare model, so that what a defence takes beyond it can be told.

    Attributes
    ----------
    seconds : float
    """

    def __init__(self, inner: Answerer) -> None:
        self.inner = inner
        self.seconds = 0.0

    def answer(
        self, prompts: Sequence[str], generation: Generation, seed: int = 0
    ) -> list[str]:
        """Answer each prompt; see `Answerer.answer`."""
        begun = time.perf_counter()
        try:
            return self.inner.answer(prompts, generation, seed)
        finally:
            self.seconds += time.perf_counter() - begun


@dataclass(frozen=True, eq=False)
class Defence:
    """What keeps a model safe: changed weights, something around it, both or nothing.

    Attributes
    ----------
    name : str
        As it stands in tables.
    model : nn.Module
    clocked : Clocked
        The bare model.
    answerer : Answerer
        `clocked`, or something around it.
    intervention : Intervention, optional
    """

    name: str
    model: nn.Module
    clocked: Clocked
    answerer: Answerer
    intervention: Intervention | None = None

    @property
    def identity(self) -> str:
        """Tells these weights from others."""
        return "base" if self.intervention is None else self.intervention.digest

    @property
    def about(self) -> dict[str, Any]:
        """What the answers depend on beside the model, as JSON has it."""
        around: dict[str, Any] = {}
        answerer: Any = self.answerer
        while answerer is not self.clocked:
            names = [entry.name for entry in fields(answerer)]
            around[type(answerer).__name__] = {
                name: getattr(answerer, name) for name in names if name not in PARTS
            }
            answerer = answerer.inner
        return {"weights": self.identity, **json_ready(around)}

    @contextmanager
    def active(self) -> Iterator[None]:
        """Change the weights for as long as the block lasts."""
        if self.intervention is None:
            yield
        else:
            with self.intervention.applied(self.model):
                yield

    def answer(
        self, attempts: Sequence[AttackCase], generation: Generation, seed: int
    ) -> list[str]:
        """Answer each attempt, without its prefill; the defence has to be active.

        Attempts that brought an answer along keep it.
        """
        asked = [(one.prompt, one.prefill) for one in attempts if one.answer is None]
        said = iter(answer_prefilled(self.answerer, asked, generation, seed))
        return [next(said) if one.answer is None else one.answer for one in attempts]
