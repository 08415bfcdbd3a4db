# SPDX-License-Identifier: Apache-2.0
"""Towards the safe region (TSR): the least change of a layer that makes a model refuse.

The loss is the negative log probability of safe continuations after harmful requests,
plus a divergence from the model's own answers to others. It is lowered by projected
gradient steps within a ball of changes, on some of the lessons at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cintervene.models.lessons import Lesson, Lessons
from cintervene.models.set_loss import divergence_loss, set_loss
from cintervene.models.targets import Decoder, Target
from cintervene.models.unembedding import Unembedding
from cintervene.models.upper import Upper, UpperBatch, logits_of
from cintervene.preserve import BenignMoments, Preserve
from cintervene.projected_gradient import ProjectedGradient
from cintervene.update import LowRankUpdate

__all__ = ["Part", "SafeRegion", "TSROptions"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TSROptions:
    """How a model is taught to refuse.

    Attributes
    ----------
    steps : int
        Projected gradient steps.
    parts : int
        Into how many parts the lessons are divided; each step looks at one.
    length : float
        Length of the first step in units of the radius; later ones are shorter.
    inertia : float
        Weight of the gradients before in the direction of a step.
    kl_weight : float
        Weight of the divergence on benign lessons.
    first_token : float
        Share of a refusal's first token in its loss.
    ridge : float
        Of the norm, relative to the mean squared input.
    answers, answer_tokens : int
        Everyday prompts that the model answers beforehand, and how far.
    """

    steps: int = 16
    parts: int = 8
    length: float = 0.3
    inertia: float = 0.7
    kl_weight: float = 10.0
    first_token: float = 0.3
    ridge: float = 1e-2
    answers: int = 100
    answer_tokens: int = 8


class Part:
    """Some harmful and benign lessons at the layer that is changed.

    Parameters
    ----------
    harmful, benign : sequence of Lesson
        At least one of each.
    """

    def __init__(
        self,
        model: nn.Module,
        target: Target,
        decoder: Decoder,
        unembedding: Unembedding,
        harmful: Sequence[Lesson],
        benign: Sequence[Lesson],
    ) -> None:
        self.harmful_lessons, self._unembedding = list(harmful), unembedding
        self.device = target.weight.device
        self.harmful, self.benign = (
            Upper(
                model,
                target,
                [one.ids for one in lessons],
                [one.split for one in lessons],
                [one.positions for one in lessons],
                decoder,
            )
            for lessons in (harmful, benign)
        )
        with torch.no_grad():
            self._base = [self.benign.states(b, None) for b in self.benign.batches]

    def losses(self, change: Tensor | None) -> Iterator[tuple[UpperBatch, Tensor]]:
        """-log p of the safe tokens: of each batch one for each wanted row."""
        for batch in self.harmful.batches:
            logits = self._logits(self.harmful, batch, change)
            sets = [s for i in batch.sequences for s in self.harmful_lessons[i].sets]
            yield batch, set_loss(logits, sets)

    def benign_logits(
        self, change: Tensor | None
    ) -> Iterator[tuple[UpperBatch, Tensor]]:
        """Logits at the wanted rows of each benign batch."""
        for batch in self.benign.batches:
            yield batch, self._logits(self.benign, batch, change)

    def divergences(self, change: Tensor) -> Iterator[Tensor]:
        """KL(base || changed) at the wanted rows of each benign batch."""
        changed = self.benign_logits(change)
        for (_, logits), base in zip(changed, self._base, strict=True):
            with torch.no_grad():
                before = logits_of(self._unembedding, base)
            yield divergence_loss(before, logits)

    def _logits(self, upper: Upper, batch: UpperBatch, change: Tensor | None) -> Tensor:
        return logits_of(self._unembedding, upper.states(batch, change))


class SafeRegion:
    """The problem of one layer: its lessons, its norm, and the descent.

    Parameters
    ----------
    model : nn.Module
        In a `differentiable` context while `descend` runs.
    target : Target
    decoder : Decoder
    unembedding : Unembedding
    lessons : Lessons
    radius : float
        Of the ball, relative to the norm of the weight.
    options : TSROptions
    """

    def __init__(
        self,
        model: nn.Module,
        target: Target,
        decoder: Decoder,
        unembedding: Unembedding,
        lessons: Lessons,
        radius: float,
        options: TSROptions,
    ) -> None:
        self.target, self.options = target, options
        parts = min(options.parts, len(lessons.harmful), len(lessons.benign))
        self.parts = [
            Part(
                model, target, decoder, unembedding,
                _flat(lessons.harmful[k::parts]), _flat(lessons.benign[k::parts]),
            )
            for k in range(parts)
        ]  # fmt: skip
        self.preserve = self._norm()
        weight = target.weight.detach().double().cpu()
        whole = (weight.T if target.transposed else weight).numpy()
        self.radius = radius * self.preserve.norm(whole)

    def descend(self) -> Iterator[dict[str, float]]:
        """Take the steps, one for each item drawn: what was seen before the step."""
        options = self.options
        # With all of the inputs' space as rows, displacements are the change itself.
        basis = np.eye(self.target.d_in)
        self._descent = ProjectedGradient(basis, self.radius, self.preserve)
        change = np.zeros((self.target.d_in, self.target.d_out))
        direction = np.zeros_like(change)
        for step in range(options.steps):
            part = self.parts[step % len(self.parts)]
            seen, gradient = self.gradient(part, change)
            direction = options.inertia * direction + (1 - options.inertia) * gradient
            length = options.length * (1 - step / options.steps)
            change = self._descent.step(direction, length=length)
            yield seen | {"norm": self._descent.norm / self.radius}

    @property
    def update(self) -> LowRankUpdate:
        """The change after the steps taken so far."""
        return self._descent.update

    def _norm(self) -> Preserve:
        """Where the change shall do little: at benign lessons and in all requests."""
        moments = BenignMoments(self.target.d_in)
        for part in self.parts:
            for upper in (part.harmful, part.benign):
                moments.add(upper.heads.inputs)
            for batch in part.benign.batches:
                moments.add(batch.inputs[batch.real])
        return moments.preserve(ridge=self.options.ridge)

    def gradient(self, part: Part, change: Floats) -> tuple[dict[str, float], Floats]:
        """Derivative with respect to the transposed change of the weight."""
        device = self.target.weight.device
        leaf = torch.tensor(change, dtype=torch.float32, device=device).requires_grad_()
        loss = drift = 0.0
        for batch, losses in part.losses(leaf):
            weights = torch.cat([self._weights(part, i) for i in batch.sequences])
            value = (losses * weights.to(losses.device)).sum()
            value = value / len(part.harmful_lessons)
            value.backward()  # type: ignore[no-untyped-call]
            loss += float(value.detach())
        rows = sum(len(batch.wanted) for batch in part.benign.batches)
        for divergences in part.divergences(leaf):
            value = divergences.sum() / rows
            (self.options.kl_weight * value).backward()  # type: ignore[no-untyped-call]
            drift += float(value.detach())
        assert leaf.grad is not None
        return {"loss": loss, "kl": drift}, leaf.grad.double().cpu().numpy()

    def _weights(self, part: Part, lesson: int) -> Tensor:
        """Shares of a refusal's tokens in its loss."""
        count = len(part.harmful_lessons[lesson].sets)
        weights = torch.full((count,), 1.0, dtype=torch.float64)
        if count > 1:
            weights *= (1 - self.options.first_token) / (count - 1)
            weights[0] = self.options.first_token
        return weights


def _flat(groups: Sequence[Sequence[Any]]) -> list[Any]:
    return [one for group in groups for one in group]
