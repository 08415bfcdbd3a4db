# SPDX-License-Identifier: Apache-2.0
"""Defences of one model as a study runs them: named and timed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

from torch import nn

from cintervene.attacks import AttackCase
from cintervene.baselines import Answerer, Generation
from cintervene.baselines.answering import answer_prefilled
from cintervene.intervention.intervention import Intervention
from cintervene.utils.json_ready import json_ready

__all__ = ["Clocked", "Defence"]

# Fields of answerers that are not recorded as settings.
NOT_SETTINGS = {"inner", "model", "tokenizer", "judge"}


class Clocked:
    """Another answerer, which measures the time it takes.

    Put around the bare model, it tells the time of generation from the time that a
    defence takes besides.

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
        start = time.perf_counter()
        try:
            return self.inner.answer(prompts, generation, seed)
        finally:
            self.seconds += time.perf_counter() - start


@dataclass(frozen=True, eq=False)
class Defence:
    """A defence of a model: changed weights, a wrapper around it, both or neither.

    Attributes
    ----------
    name : str
        As tables show it.
    model : nn.Module
    clocked : Clocked
        The bare model.
    answerer : Answerer
        `clocked`, or a wrapper around it.
    intervention : Intervention, optional
    """

    name: str
    model: nn.Module
    clocked: Clocked
    answerer: Answerer
    intervention: Intervention | None = None

    @property
    def identity(self) -> str:
        """Identifies the weights: the intervention's digest, or ``"base"``."""
        return "base" if self.intervention is None else self.intervention.digest

    @property
    def about(self) -> dict[str, Any]:
        """What the answers depend on besides the model, as JSON."""
        wrappers: dict[str, Any] = {}
        answerer: Any = self.answerer
        while answerer is not self.clocked:
            names = [entry.name for entry in fields(answerer)]
            wrappers[type(answerer).__name__] = {
                name: getattr(answerer, name)
                for name in names
                if name not in NOT_SETTINGS
            }
            answerer = answerer.inner
        return {"weights": self.identity, **json_ready(wrappers)}

    @contextmanager
    def active(self) -> Iterator[None]:
        """Apply the intervention, if there is one, inside the block."""
        if self.intervention is None:
            yield
        else:
            with self.intervention.applied(self.model):
                yield

    def answer(
        self, cases: Sequence[AttackCase], generation: Generation, seed: int
    ) -> list[str]:
        """Answer each test case, without its prefill; the defence has to be active.

        Cases that come with an answer keep it.
        """
        asked = [one for one in cases if one.answer is None]
        prompts = [(one.prompt, one.prefill) for one in asked]
        turns = [one.turns for one in asked]
        answers = iter(
            answer_prefilled(self.answerer, prompts, generation, seed, turns)
        )
        return [next(answers) if one.answer is None else one.answer for one in cases]
