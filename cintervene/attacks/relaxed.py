# SPDX-License-Identifier: Apache-2.0
"""Projected gradient on distributions over the vocabulary at each free position.

Source: S. Geisler et al., "Attacking large language models with projected gradient
descent", arXiv 2402.09154. The bound on the entropy falls evenly here; the paper adapts
it to the distance between the losses of the relaxed and the discrete prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cintervene.attacks.base import AttackCase, Checkpoint, Request
from cintervene.attacks.objective import Layout, Objective
from cintervene.attacks.suffix_attack import SuffixAttack
from cintervene.models.trace import evaluating
from cintervene.solvers.projections import project_simplex
from cintervene.utils.ranges import Pair
from cintervene.utils.validation import check_positive, check_share

__all__ = ["RelaxedPGD"]


@dataclass(frozen=True, eq=False)
class RelaxedPGD(SuffixAttack):
    """Search for a suffix in the distributions over tokens, from a random start.

    After each step the most likely tokens are decoded and tokenized again; the text
    with the lowest loss is the test case.

    Attributes
    ----------
    model, tokenizer, steps, length, target, early_stop
        See `SuffixAttack`.
    rate : float, default 0.11
        Learning rate of Adam.
    entropy : tuple of float, default (0.9, 0.1)
        Bound on the Gini entropy of each position at the first and the last step.
    """

    rate: float = 0.11
    entropy: tuple[float, float] = (0.9, 0.1)
    name: str = "relaxed PGD"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(rate=self.rate)
        first, last = Pair().check("entropy", self.entropy)
        check_share(entropy=first)
        check_share(entropy=last)

    def cases(
        self, request: Request, seed: int, checkpoint: Checkpoint
    ) -> Sequence[AttackCase]:
        """Make the one test case; see `Attack.cases`."""
        found: list[_Found] = []
        with evaluating(self.model):
            for one in self._search(self._lay_out(request.text), seed):
                found.append(one)
                checkpoint.step(min(1, len(found) - 1))
        best = min(found, key=_rank)
        case = self._case(
            request,
            best.prompt,
            loss=best.loss,
            first_loss=found[0].loss,
            steps=len(found) - 1,
        )
        return [case]

    def suffixed(self, request: str, answer: Sequence[int], seed: int) -> str:
        """The best text for an answer given as tokens, in place of `target`.

        Makes this an adversary for ``defend(method="arr")``.
        """
        goal = replace(self._lay_out(request), target=list(answer))
        with evaluating(self.model):
            return min(self._search(goal, seed), key=_rank).prompt

    def _search(self, layout: Layout, seed: int) -> Iterator[_Found]:
        """Yield what is found at the start and after each step.

        Where no text has a step's tokens, that of the step before. With `early_stop`,
        the last is the first after which the answer begins as wanted.
        """
        objective = Objective(self.model, layout)
        start = layout.prompt(layout.free)
        assert start is not None  # `lay_out` has checked that.
        latest = self._found(start, objective.free, objective)
        yield latest
        for x in self._descend(objective, seed):
            if latest.ends:
                return
            latest = self._discrete(x, layout, objective) or latest
            yield latest

    def _discrete(
        self, x: Tensor, layout: Layout, objective: Objective
    ) -> _Found | None:
        """The text of the most likely tokens, once they are tokenized again."""
        written = layout.written(x.argmax(dim=1).tolist())
        if written is None:
            return None
        text, tokens = written
        return self._found(text, torch.tensor(tokens, device=x.device), objective)

    def _found(self, text: str, tokens: Tensor, objective: Objective) -> _Found:
        scores = objective.of_tokens(tokens[None])
        ends = self._ends(objective, objective.embed(tokens), scores.begins)
        return _Found(float(scores.losses), text, ends)

    def _descend(self, objective: Objective, seed: int) -> Any:
        """Yield the distributions (free, vocabulary) after each step."""
        vocabulary = objective.embeddings.float()
        banned = ~self._allowed.to(vocabulary.device)
        source = np.random.default_rng(seed)
        start = source.random((len(objective.free), len(vocabulary)), dtype=np.float32)
        x = torch.from_numpy(start).to(vocabulary)
        x[torch.arange(len(x)), objective.free] += 1.0
        x = _projected(x, banned, self.entropy[0])
        optimiser = torch.optim.Adam([x], lr=self.rate)
        for number in range(self.steps):
            _, slope = objective.gradient(x @ vocabulary)
            gradient = slope @ vocabulary.T
            # Each position takes a step of one length, whatever the loss's scale.
            x.grad = gradient / gradient.norm(dim=1, keepdim=True).clamp_min(1e-30)
            optimiser.step()
            share = (number + 1) / self.steps
            bound = (1 - share) * self.entropy[0] + share * self.entropy[1]
            x.copy_(_projected(x, banned, bound))
            yield x


class _Found(NamedTuple):
    """A text, its loss, and whether the search ends with it."""

    loss: float
    prompt: str
    ends: bool


def _rank(found: _Found) -> tuple[bool, float]:
    return not found.ends, found.loss


def _projected(x: Tensor, banned: Tensor, entropy: float) -> Tensor:
    free = x.masked_fill(banned, -torch.inf)
    projected = project_simplex(free.cpu().numpy(), entropy=entropy)
    return torch.from_numpy(projected).to(x)
