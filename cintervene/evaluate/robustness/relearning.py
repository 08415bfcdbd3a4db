# SPDX-License-Identifier: Apache-2.0
"""Relearning: how soon fine-tuning makes a model say its forbidden words again."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cintervene.activations.batches import padded
from cintervene.activations.next_token import answer_nll
from cintervene.errors import ArgumentError
from cintervene.models.parts import ModelParts
from cintervene.models.quantised import check_writable
from cintervene.prompts.target_spans import TargetSpan
from cintervene.utils.progress import Progress, counting, silent

__all__ = ["Relearned", "relearn"]


@dataclass(frozen=True, slots=True)
class Relearned:
    """Perplexity of words while a model is trained on some of them.

    Attributes
    ----------
    steps : list of int
        Gradient steps done, from 0.
    trained, others : list of float
        Perplexity of the words trained on and of others, after so many steps.
    """

    steps: list[int]
    trained: list[float]
    others: list[float]


def relearn(
    model: nn.Module,
    trained: Sequence[TargetSpan],
    others: Sequence[TargetSpan],
    *,
    steps: int = 10,
    rate: float = 2e-5,
    batch: int = 8,
    seed: int = 0,
    progress: Progress = silent,
) -> Relearned:
    """Fine-tune a copy of the model to say words, and measure their perplexity.

    All weights are trained, in float32, with Adam: what somebody with the weights and
    a few examples would try first. The model itself is not changed; the copy takes as
    much memory as four float32 models.

    Parameters
    ----------
    model : nn.Module
        With the intervention applied.
    trained, others : sequence of TargetSpan
        Answers that say words to train on, and others to test generalisation on.
    steps : int, default 10
    rate : float, default 2e-5
        Learning rate of Adam, constant.
    batch : int, default 8
        Answers in each step.
    seed : int, default 0
        Of the order of the answers.
    progress : Progress, optional

    Raises
    ------
    ArgumentError
        There are no answers of a kind, or a number is not positive.
    ModelError
        Weights are quantised or offloaded.
    """
    if not trained or not others or steps < 1 or batch < 1 or not rate > 0:
        raise ArgumentError(
            f"trained, others, steps, batch, rate: got {len(trained)} and "
            f"{len(others)} answers, {steps}, {batch}, {rate}; expected at least one "
            "of each and positive numbers; give answers of both kinds"
        )
    check_writable(model)
    tuned = copy.deepcopy(model).float().train()
    _no_dropout(tuned)
    optimiser = torch.optim.Adam(tuned.parameters(), lr=rate)
    source = np.random.default_rng(seed)
    result = Relearned([], [], [])
    step = counting(progress, "relearning", steps)
    parts = ModelParts.find(tuned)
    _record(result, parts, 0, trained, others)
    for done in range(1, steps + 1):
        chosen = source.choice(len(trained), min(batch, len(trained)), replace=False)
        with torch.enable_grad():
            loss = _loss(tuned, [trained[k] for k in chosen])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        # At 1, 2, 4, 8 steps and at the end.
        if done == steps or done & (done - 1) == 0:
            _record(result, parts, done, trained, others)
        step(1)
    return result


def _record(
    result: Relearned,
    parts: ModelParts,
    steps: int,
    trained: Sequence[TargetSpan],
    others: Sequence[TargetSpan],
) -> None:
    result.steps.append(steps)
    result.trained.append(_perplexity(parts, trained))
    result.others.append(_perplexity(parts, others))


def _perplexity(parts: ModelParts, spans: Sequence[TargetSpan]) -> float:
    prompts = [one.ids[: one.start] for one in spans]
    nats = answer_nll(parts, prompts, [one.targets for one in spans])
    return float(np.exp(np.concatenate(nats).mean()))


def _loss(model: Any, spans: Sequence[TargetSpan]) -> Tensor:
    """Mean -log p of the target tokens; sequences are padded on the right."""
    device = next(model.parameters()).device
    rows = padded([one.ids for one in spans])
    logits = model(torch.tensor(rows, device=device), use_cache=False).logits
    row = [k for k, one in enumerate(spans) for _ in one.positions]
    at = [position for one in spans for position in one.positions]
    goal = [token for one in spans for token in one.targets]
    return nn.functional.cross_entropy(
        logits[row, at], torch.tensor(goal, device=device)
    )


def _no_dropout(model: nn.Module) -> None:
    """Turn dropout off, which would draw from the global random state."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
