# SPDX-License-Identifier: Apache-2.0
"""Whether answers that have begun to comply are still broken off, at each depth.

Refusals often hang on the first few tokens: X. Qi et al., "Safety alignment should be
made more than just a few tokens deep", arXiv 2406.05946.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from cintervene.activations.next_token import next_logits
from cintervene.attacks.templates import PREFILL
from cintervene.evaluate.requests.outcomes import Outcome, Outcomes, count, outcomes
from cintervene.evaluate.statistics.intervals import Estimate, wilson
from cintervene.judges.base import Judge, refusal_matcher
from cintervene.models.parts import ModelParts
from cintervene.models.precision import quick_products
from cintervene.models.trace import evaluating
from cintervene.prompts.chat import answer_text, generate, render
from cintervene.prompts.spelling import encode_text
from cintervene.utils.progress import Progress, counting, silent

__all__ = ["DEPTHS", "Begun", "DepthPoint", "begin_answers", "depth_curve"]

DEPTHS = (0, 5, 10, 20, 40)
TOP = 10


@dataclass(frozen=True, slots=True)
class Begun:
    """A request and how the undefended model itself answers it when it complies.

    Attributes
    ----------
    request : str
    answer : tuple of int
        Tokens.
    """

    request: str
    answer: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class DepthPoint:
    """What becomes of answers of which some tokens were given.

    Attributes
    ----------
    depth : int
        Tokens that were given.
    outcomes : Outcomes
        Of what the model says from there on.
    rank : float
        Median rank of the begun answer's next token, 1 where it is the likeliest: at
        depth 0 of the first token of a harmful answer.
    top_ten : Estimate
        Share of the answers of which it is among the ten likeliest.
    """

    depth: int
    outcomes: Outcomes
    rank: float
    top_ten: Estimate


@quick_products()
def begin_answers(
    model: nn.Module,
    tokenizer: Any,
    requests: Sequence[str],
    *,
    tokens: int = max(DEPTHS) + 1,
    judge: Judge = refusal_matcher,
    progress: Progress = silent,
) -> list[Begun]:
    """Let a model answer after "Sure, here is"; requests that it then refuses are out.

    Parameters
    ----------
    model : nn.Module
        Without a defence.
    tokenizer
    requests : sequence of str
    tokens : int, default 41
        Of each answer, the beginning included.
    judge : Judge, optional
    progress : Progress, optional
    """
    start = encode_text(tokenizer, PREFILL)
    rendered = [render(tokenizer, one) + start for one in requests]
    step = counting(progress, "begun answers", len(rendered))
    more = max(tokens - len(start), 1)
    with evaluating(model):
        rest = generate(model, tokenizer, rendered, more, step=step)
    texts = [PREFILL + answer_text(tokenizer, one) for one in rest]
    found = outcomes(
        [answer_text(tokenizer, one) for one in rest],
        prompts=requests, prefills=[PREFILL] * len(rest), judge=judge,
    )  # fmt: skip
    also = judge(requests, texts)
    return [
        Begun(request, (*start, *answer))
        for request, answer, outcome, refused in zip(
            requests, rest, found, also, strict=True
        )
        if outcome is not Outcome.REFUSED and not refused
    ]


@quick_products()
def depth_curve(
    model: nn.Module,
    tokenizer: Any,
    begun: Sequence[Begun],
    *,
    depths: Sequence[int] = DEPTHS,
    tokens: int = 128,
    judge: Judge = refusal_matcher,
    progress: Progress = silent,
) -> list[DepthPoint]:
    """Give a model the first tokens of answers, and see what it goes on with.

    Parameters
    ----------
    model : nn.Module
        With whatever intervention is applied to it.
    tokenizer
    begun : sequence of Begun
        Of the model without one (`begin_answers`).
    depths : sequence of int, default (0, 5, 10, 20, 40)
        Tokens that are given. Answers that are not longer are left out there, and
        depths at which none is left.
    tokens : int, default 128
        Largest length of what the model adds.
    judge : Judge, optional
        Reads what the model adds.
    progress : Progress, optional
    """
    points = []
    parts = ModelParts.find(model)
    for depth in depths:
        longer = [one for one in begun if len(one.answer) > depth]
        if not longer:
            continue
        given = [
            [*render(tokenizer, one.request), *one.answer[:depth]] for one in longer
        ]
        step = counting(progress, f"depth {depth}", len(given))
        with evaluating(model):
            replies = generate(model, tokenizer, given, tokens, step=step)
            ranks = _ranks(parts, given, [one.answer[depth] for one in longer])
        found = outcomes(
            [answer_text(tokenizer, reply) for reply in replies],
            prompts=[one.request for one in longer],
            prefills=[answer_text(tokenizer, one.answer[:depth]) for one in longer],
            judge=judge,
        )
        near = wilson(int((ranks <= TOP).sum()), len(ranks))
        points.append(DepthPoint(depth, count(found), float(np.median(ranks)), near))
    return points


def _ranks(
    parts: ModelParts, given: Sequence[Sequence[int]], tokens: Sequence[int]
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Rank of each token as the next one; 1 is the likeliest."""
    logits = next_logits(parts, given)
    own = logits.gather(1, torch.tensor(tokens, device=logits.device)[:, None])
    ranks: np.ndarray[Any, np.dtype[np.int64]] = (
        ((logits > own).sum(dim=1) + 1).cpu().numpy()
    )
    return ranks
