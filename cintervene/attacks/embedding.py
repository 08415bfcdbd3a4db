# SPDX-License-Identifier: Apache-2.0
"""Projected gradient on the embeddings of a suffix: the strongest attacker there is.

No text has such embeddings, so this is what somebody with the weights can do, and a
bound on what texts can do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cintervene.attacks.base import (
    Case,
    Notes,
    Request,
)
from cintervene.attacks.objective import Objective, lay_out
from cintervene.attacks.templates import PREFILL
from cintervene.models.trace import evaluating
from cintervene.prompts.chat import continue_embeddings
from cintervene.solvers.projections import project_ball

__all__ = ["EmbeddingPGD"]


@dataclass(frozen=True, eq=False)
class EmbeddingPGD:
    """Move the embeddings of a suffix within a ball around where they start.

    Attributes
    ----------
    model : nn.Module
        The model that is attacked, with whatever intervention is applied to it.
    tokenizer : Any
    steps : int, default 50
    radius : float, default 1.0
        Of each position's ball, in mean norms of the vocabulary's embeddings.
    step_size : float, default 0.1
        Length of a step of each position, in the same unit.
    length : int, default 20
        Positions of the suffix.
    target : str
        How the answer should begin.
    max_new_tokens : int, default 64
        Of the answer, which is generated at once and counted from its beginning.
    """

    model: nn.Module
    tokenizer: Any
    steps: int = 50
    radius: float = 1.0
    step_size: float = 0.1
    length: int = 20
    target: str = PREFILL
    max_new_tokens: int = 64
    name: str = "embedding PGD"

    @property
    def options(self) -> dict[str, Any]:
        """The budget and the target."""
        names = ("steps", "radius", "step_size", "length", "target", "max_new_tokens")
        return {name: getattr(self, name) for name in names}

    def cases(self, request: Request, seed: int, notes: Notes) -> Sequence[Case]:
        """Make the one test case, with its answer; see `Attack.cases`.

        Nothing is random, so the seed is not used.
        """
        layout = lay_out(self.tokenizer, request.text, self.length, self.target)
        with evaluating(self.model):
            objective = Objective(self.model, layout)
            best, losses = self._descend(objective, notes)
            around = (layout.before, best, layout.after)
            said = continue_embeddings(
                self.model, self.tokenizer, *around, self.max_new_tokens
            )
        details = {"loss": min(losses), "first_loss": losses[0], "steps": self.steps}
        answer = self.tokenizer.decode(said, skip_special_tokens=True)
        case = Case(
            request.id,
            request.text,
            self.name,
            layout.request,
            answer=answer,
            details=details,
        )
        return [case]

    def _descend(
        self, objective: Objective, notes: Notes
    ) -> tuple[Tensor, list[float]]:
        """The best embeddings seen and the loss before each step and after the last."""
        start = objective.embed(objective.free).float()
        unit = float(objective.embeddings.float().norm(dim=1).mean())
        moved = torch.zeros_like(start)
        best, losses = start, []
        for _ in range(self.steps + 1):
            at = start + moved
            loss, gradient = objective.gradient(at)
            losses.append(float(loss))
            if losses[-1] <= min(losses):
                best = at
            lengths = gradient.norm(dim=1, keepdim=True).clamp_min(1e-30)
            moved = moved - self.step_size * unit * gradient / lengths
            ball = project_ball(moved.cpu().numpy(), self.radius * unit)
            moved = torch.from_numpy(ball).to(start)
            notes.step(min(1, self.steps + 1 - len(losses)))
        return best, losses
