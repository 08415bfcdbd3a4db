# SPDX-License-Identifier: Apache-2.0
"""Greedy coordinate gradient: a suffix of tokens that makes the model comply.

Source: A. Zou et al., "Universal and transferable adversarial attacks on aligned
language models", arXiv 2307.15043, algorithm 1; the filter for suffixes that survive
being written and read again is from its section on implementation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cintervene.attacks.base import AttackCase, Checkpoint, Request
from cintervene.attacks.objective import Layout, Objective, Scores
from cintervene.attacks.suffix_attack import SuffixAttack
from cintervene.models.trace import evaluating
from cintervene.utils.validation import check_not_negative, check_whole

__all__ = ["GCG"]

# Steps between checkpoints: a lost one costs seconds, writing costs milliseconds.
SAVE_EVERY = 5


@dataclass(frozen=True, eq=False)
class GCG(SuffixAttack):
    """Search for the tokens of a suffix by greedy coordinate gradient.

    Attributes
    ----------
    model, tokenizer, steps, length, target, early_stop
        See `SuffixAttack`. The paper takes 500 steps.
    search_width : int, default 128
        Suffixes tried in each step; the paper takes 512.
    topk : int, default 256
        Tokens per position that candidates are drawn from.
    enough : float, default 0.02
        Loss, in nats per token, at which the search ends.
    batch : int, default 64
        Candidates in one forward pass; does not change the result.
    """

    search_width: int = 128
    topk: int = 256
    enough: float = 0.02
    batch: int = 64
    name: str = "GCG"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(1, search_width=self.search_width, topk=self.topk, batch=self.batch)
        check_not_negative(enough=self.enough)

    def cases(
        self, request: Request, seed: int, checkpoint: Checkpoint
    ) -> Sequence[AttackCase]:
        """Make the one test case; see `Attack.cases`."""
        layout = self._lay_out(request.text)
        with evaluating(self.model):
            objective = Objective(self.model, layout)
            search = _Search(self, layout, objective, self._allowed)
            state = checkpoint.state or search.start()
            checkpoint.step(state["step"])
            while state["step"] < self.steps and not state["ended"]:
                state = search.step(state, seed)
                checkpoint.step(1)
                if state["step"] % SAVE_EVERY == 0:
                    checkpoint.save(state)
        prompt = layout.prompt(state["best"])
        assert prompt is not None  # The start and every candidate can be written.
        case = self._case(
            request,
            prompt,
            loss=state["best_loss"],
            first_loss=state["losses"][0],
            steps=state["step"],
        )
        return [case]


@dataclass(frozen=True, eq=False)
class _Search:
    """One request's search; its state is plain numbers, so that it can be stored."""

    attack: GCG
    layout: Layout
    objective: Objective
    allowed: Tensor

    def start(self) -> dict[str, Any]:
        row = self.objective.free
        scores = self.objective.of_tokens(row[None])
        loss, free = float(scores.losses), self.layout.free
        return {
            "step": 0, "free": free, "best": free, "best_loss": loss, "losses": [loss],
            "ended": self._reached(row, scores.begins) or loss <= self.attack.enough,
        }  # fmt: skip

    def step(self, state: dict[str, Any], seed: int) -> dict[str, Any]:
        """Move to the best of the candidates, even if it is worse than the last one."""
        free = torch.tensor(state["free"], device=self.objective.free.device)
        # Each step has random numbers of its own: nothing else has to be stored.
        source = torch.Generator().manual_seed(seed * 1_000_003 + state["step"])
        rows = self._candidates(free, source)
        moved, loss, reached = state["free"], state["losses"][-1], False
        if len(rows):
            scores = self.objective.of_tokens(rows, self.attack.batch)
            best = self._best(rows, scores)
            if best is not None:
                moved, loss = rows[best].tolist(), float(scores.losses[best])
                reached = self._reached(rows[best], scores.begins[best])
        better = reached or loss < state["best_loss"]
        return {
            "step": state["step"] + 1,
            "free": moved,
            "best": moved if better else state["best"],
            "best_loss": loss if better else state["best_loss"],
            "losses": [*state["losses"], loss],
            "ended": reached or loss <= self.attack.enough,
        }

    def _reached(self, row: Tensor, begins: Tensor) -> bool:
        return self.attack._ends(self.objective, self.objective.embed(row), begins)

    def _candidates(self, free: Tensor, source: torch.Generator) -> Tensor:
        """Suffixes with one token replaced by one of those the gradient favours."""
        _, gradient = self.objective.gradient(self.objective.embed(free))
        slopes = gradient @ self.objective.embeddings.float().T
        slopes[:, ~self.allowed.to(slopes.device)] = torch.inf
        topk = min(self.attack.topk, int(self.allowed.sum()))
        best = (-slopes).topk(topk, dim=1).indices.cpu()
        count = self.attack.search_width
        # The positions take turns, as in the authors' program.
        places = torch.arange(count) * len(free) // count
        drawn = torch.randint(topk, (count,), generator=source)
        rows = free.cpu().repeat(count, 1)
        rows[torch.arange(count), places] = best[places, drawn]
        rows = torch.unique(rows, dim=0)
        if self._reads_first:
            kept = [row for row in rows if self._survives(row)]
            rows = torch.stack(kept) if kept else rows[:0]
        return rows.to(free.device)

    def _best(self, rows: Tensor, scores: Scores) -> int | None:
        """The suffix with the least loss that survives; None if none does.

        With `early_stop`, of those that make the answer begin as wanted if any do.
        """
        order: list[int] = scores.losses.argsort(stable=True).tolist()
        if self.attack.early_stop:
            begins: list[bool] = scores.begins.tolist()
            order.sort(key=lambda at: not begins[at])
        if self._reads_first:
            return order[0]
        return next((at for at in order if self._survives(rows[at])), None)

    @property
    def _reads_first(self) -> bool:
        """Whether suffixes that do not survive are sorted out before they are tried.

        A forward pass is dear on a CPU and cheap on an accelerator, where writing and
        reading 512 suffixes would take most of the time; the choice is the same.
        """
        return self.objective.free.device.type == "cpu"

    def _survives(self, row: Tensor) -> bool:
        """Whether a suffix, once decoded, is tokenized to the same tokens again."""
        return self.layout.prompt(row.tolist()) is not None
