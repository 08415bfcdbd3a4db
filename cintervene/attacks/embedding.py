# SPDX-License-Identifier: Apache-2.0
"""Projected gradient descent on the embeddings of a suffix: the strongest attack here.

No text has such embeddings, so this is what somebody with the weights can do, and a
bound on what texts can do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cintervene.attacks.base import AttackCase, Checkpoint, Request
from cintervene.attacks.objective import Objective
from cintervene.attacks.suffix_attack import SuffixAttack
from cintervene.models.trace import evaluating
from cintervene.prompts.chat import answer_text, continue_embeddings
from cintervene.solvers.projections import project_ball
from cintervene.utils.validation import (
    check_not_negative,
    check_positive,
    check_whole,
)

__all__ = ["EmbeddingPGD"]


@dataclass(frozen=True, eq=False)
class EmbeddingPGD(SuffixAttack):
    """Move the embeddings of a suffix within a ball around where they start.

    Attributes
    ----------
    model, tokenizer, length, target, early_stop
        See `SuffixAttack`.
    steps : int, default 50
    radius : float, default 1.0
        Of each position's ball, in mean norms of the vocabulary's embeddings.
    step_size : float, default 0.1
        Length of a step of each position, in the same unit.
    max_new_tokens : int, default 64
        Of the answer, which is generated at once.
    """

    steps: int = 50
    radius: float = 1.0
    step_size: float = 0.1
    max_new_tokens: int = 64
    name: str = "embedding PGD"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_not_negative(radius=self.radius)
        check_positive(step_size=self.step_size)
        check_whole(1, max_new_tokens=self.max_new_tokens)

    def cases(
        self, request: Request, seed: int, checkpoint: Checkpoint
    ) -> Sequence[AttackCase]:
        """Make the one test case, with its answer; see `Attack.cases`.

        Nothing is random, so the seed is not used.
        """
        layout = self._lay_out(request.text)
        with evaluating(self.model):
            objective = Objective(self.model, layout)
            best, at, losses = self._descend(objective, checkpoint)
            around = (layout.before, best, layout.after)
            tokens = continue_embeddings(
                self.model, self.tokenizer, *around, self.max_new_tokens
            )
        case = self._case(
            request,
            layout.request,
            loss=losses[at],
            first_loss=losses[0],
            steps=len(losses) - 1,
            answer=answer_text(self.tokenizer, tokens),
        )
        return [case]

    def _descend(
        self, objective: Objective, checkpoint: Checkpoint
    ) -> tuple[Tensor, int, list[float]]:
        """The best embeddings, their step, and the loss at the start and each step."""
        start = objective.embed(objective.free).float()
        unit = float(objective.embeddings.float().norm(dim=1).mean())
        moved = torch.zeros_like(start)
        best, step, losses = start, 0, []
        for number in range(self.steps + 1):
            at = start + moved
            scores, gradient = objective.gradient(at)
            losses.append(float(scores.losses))
            ended = self._ends(objective, at, scores.begins)
            if ended or losses[-1] <= min(losses):
                best, step = at, number
            checkpoint.step(min(1, number))
            if ended:
                break
            lengths = gradient.norm(dim=1, keepdim=True).clamp_min(1e-30)
            moved = moved - self.step_size * unit * gradient / lengths
            ball = project_ball(moved.cpu().numpy(), self.radius * unit)
            moved = torch.from_numpy(ball).to(start)
        return best, step, losses
