# SPDX-License-Identifier: Apache-2.0
"""Greedy coordinate gradient: a suffix of tokens that makes the model comply.

Source: A. Zou et al., "Universal and transferable adversarial attacks on aligned
language models", arXiv 2307.15043, algorithm 1; the filter for suffixes that survive
being written and read again is from its section on implementation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from cintervene.attacks.base import (
    Case,
    Notes,
    Request,
)
from cintervene.attacks.objective import Layout, Objective, allowed_tokens, lay_out
from cintervene.attacks.templates import PREFILL
from cintervene.models.trace import evaluating

__all__ = ["GCG"]

# Steps between notes: a lost one costs seconds, writing costs milliseconds.
SAVE_EVERY = 5


@dataclass(frozen=True, eq=False)
class GCG:
    """Search for a suffix of a request.

    Attributes
    ----------
    model : nn.Module
        The model that is attacked, with whatever intervention is applied to it.
    tokenizer : Any
    steps : int, default 100
        The paper takes 500.
    candidates : int, default 128
        Suffixes tried a step; the paper takes 512.
    top_k : int, default 256
        Tokens a position that candidates are drawn from.
    length : int, default 20
        Tokens of the suffix.
    target : str
        How the answer should begin.
    enough : float, default 0.02
        Nats a token at which the search ends.
    batch : int, default 64
        Candidates in one pass.
    """

    model: nn.Module
    tokenizer: Any
    steps: int = 100
    candidates: int = 128
    top_k: int = 256
    length: int = 20
    target: str = PREFILL
    enough: float = 0.02
    batch: int = 64
    name: str = "GCG"

    @property
    def options(self) -> dict[str, Any]:
        """The budget and the target."""
        names = ("steps", "candidates", "top_k", "length", "target", "enough")
        return {name: getattr(self, name) for name in names}

    @cached_property
    def _allowed(self) -> Tensor:
        """Tokens that may stand in the suffix; the same for all requests."""
        embedding: Any = self.model.get_input_embeddings()  # type: ignore[operator]
        return allowed_tokens(self.tokenizer, len(embedding.weight))

    def cases(self, request: Request, seed: int, notes: Notes) -> Sequence[Case]:
        """Make the one test case; see `Attack.cases`."""
        layout = lay_out(self.tokenizer, request.text, self.length, self.target)
        with evaluating(self.model):
            objective = Objective(self.model, layout)
            search = _Search(self, layout, objective, self._allowed)
            state = notes.state or search.start()
            notes.step(state["step"])
            while state["step"] < self.steps and state["best_loss"] > self.enough:
                state = search.step(state, seed)
                notes.step(1)
                if state["step"] % SAVE_EVERY == 0:
                    notes.save(state)
        details = {
            "loss": state["best_loss"],
            "first_loss": state["losses"][0],
            "steps": state["step"],
        }
        prompt = layout.prompt(state["best"])
        assert prompt is not None  # The start and every candidate can be written.
        return [Case(request.id, request.text, self.name, prompt, details=details)]


@dataclass(frozen=True, eq=False)
class _Search:
    """One request's search; its state is plain numbers, so that it can be stored."""

    attack: GCG
    layout: Layout
    objective: Objective
    allowed: Tensor

    def start(self) -> dict[str, Any]:
        loss = float(self.objective.of_tokens(self.objective.free[None])[0])
        free = self.layout.free
        return {
            "step": 0, "free": free, "best": free, "best_loss": loss, "losses": [loss]
        }  # fmt: skip

    def step(self, state: dict[str, Any], seed: int) -> dict[str, Any]:
        """Move to the best of the candidates, be it worse than where we are."""
        free = torch.tensor(state["free"], device=self.objective.free.device)
        # Each step has random numbers of its own: nothing else has to be stored.
        source = torch.Generator().manual_seed(seed * 1_000_003 + state["step"])
        rows = self._candidates(free, source)
        moved, loss = state["free"], state["losses"][-1]
        if len(rows):
            losses = self.objective.of_tokens(rows, self.attack.batch)
            at = int(losses.argmin())
            moved, loss = rows[at].tolist(), float(losses[at])
        better = loss < state["best_loss"]
        return {
            "step": state["step"] + 1,
            "free": moved,
            "best": moved if better else state["best"],
            "best_loss": loss if better else state["best_loss"],
            "losses": [*state["losses"], loss],
        }

    def _candidates(self, free: Tensor, source: torch.Generator) -> Tensor:
        """Suffixes with one token exchanged for one that the gradient likes.

        Only those that a tokenizer reads back as the same tokens in their place.
        """
        _, gradient = self.objective.gradient(self.objective.embed(free))
        slopes = gradient @ self.objective.embeddings.float().T
        slopes[:, ~self.allowed.to(slopes.device)] = torch.inf
        top_k = min(self.attack.top_k, int(self.allowed.sum()))
        best = (-slopes).topk(top_k, dim=1).indices.cpu()
        count = self.attack.candidates
        # Every position has its turn, as in the paper's program.
        places = torch.arange(count) * len(free) // count
        drawn = torch.randint(top_k, (count,), generator=source)
        rows = free.cpu().repeat(count, 1)
        rows[torch.arange(count), places] = best[places, drawn]
        rows = torch.unique(rows, dim=0)
        kept = [row for row in rows if self.layout.prompt(row.tolist()) is not None]
        return torch.stack(kept).to(free.device) if kept else rows[:0]
