# SPDX-License-Identifier: Apache-2.0
"""What a model can do, without and with an intervention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from torch import nn

from cintervene.errors import ArgumentError
from cintervene.evaluate.capability.checks import follows, instructions
from cintervene.evaluate.capability.harness import Score, check_installed, run_tasks
from cintervene.evaluate.statistics.intervals import LEVEL
from cintervene.evaluate.statistics.paired import Change, rate_change
from cintervene.evaluate.subject import Record, subject
from cintervene.intervention.intervention import Intervention
from cintervene.models.precision import quick_products
from cintervene.models.trace import evaluating
from cintervene.prompts.chat import answer_text, generate, render
from cintervene.utils.progress import Progress, counting, silent
from cintervene.utils.ranks import of_one
from cintervene.utils.validation import check_whole

__all__ = ["Capability", "Followed", "TaskChange", "measure_capability"]


@dataclass(frozen=True, slots=True)
class Followed:
    """One instruction, the answers to it, and whether they follow it."""

    prompt: str
    before: str
    after: str
    followed_before: bool
    followed_after: bool


@dataclass(frozen=True, slots=True)
class TaskChange:
    """A metric of a task of lm_eval, before and after.

    Attributes
    ----------
    task, metric : str
    before, after : float
    error_before, error_after : float or None
        Standard errors as lm_eval gives them. Both runs are on the same examples, so
        that the difference is surer than they say.
    """

    task: str
    metric: str
    before: float
    after: float
    error_before: float | None
    error_after: float | None


@dataclass(frozen=True)
class Capability(Record):
    """What a model can do, without and with an intervention.

    Attributes
    ----------
    level : float
        Of the interval.
    requests : int
        Instructions that were given.
    followed : Change
        Share of them that the answer follows to the letter.
    answers : list of Followed
    tasks : list of TaskChange
    """

    level: float
    requests: int
    followed: Change
    answers: list[Followed]
    tasks: list[TaskChange] = field(default_factory=list)


@quick_products()
def measure_capability(
    model: nn.Module,
    tokenizer: Any,
    intervention: Intervention,
    *,
    prompts: int = 40,
    tokens: int = 128,
    tasks: Sequence[Any] = (),
    limit: int | None = None,
    template_options: Mapping[str, Any] | None = None,
    progress: Progress = silent,
) -> Capability:
    """Give instructions that code can check, and run tasks of lm_eval, twice.

    Nothing is random but what a task of lm_eval makes so. The intervention is applied
    for a while; afterwards, even after an error, the model is as it was.

    Parameters
    ----------
    model : nn.Module
        The base model.
    tokenizer
    intervention : Intervention
        One that fits the base and is not applied.
    prompts : int, default 40
        Instructions of the package's forty.
    tokens : int, default 128
        Largest length of the answers.
    tasks : sequence, optional
        Of lm_eval: names or configurations.
    limit : int, optional
        Examples of each task; default: all.
    template_options : mapping, optional
        What to give the chat template; default: what the intervention was made with.
        Tasks of lm_eval do without a chat template.
    progress : Progress, optional

    Raises
    ------
    ArgumentError
        lm_eval is not installed and tasks were given, it knows no such task, or a
        number is not positive.
    InterventionError
        The intervention does not fit the model, or is already applied.
    """
    check_whole(1, prompts=prompts, tokens=tokens)
    if tasks:
        check_installed()
    model, chat = subject(model, tokenizer, intervention, template_options)
    asked = instructions()[:prompts]
    rendered = [render(chat, one.prompt) for one in asked]
    said: dict[str, list[str]] = {}
    scores: dict[str, list[Score]] = {}
    for when, changed in (("before", None), ("after", intervention)):
        with nullcontext() if changed is None else changed.applied(model):
            step = counting(progress, f"instructions {when}", len(rendered))
            with evaluating(model):
                replies = generate(model, chat, rendered, tokens, step=step)
            said[when] = [answer_text(chat, reply) for reply in replies]
            scores[when] = (
                of_one(
                    "tasks", partial(run_tasks, model, tokenizer, tasks, limit=limit)
                )
                if tasks
                else []
            )
    answers = [
        Followed(one.prompt, old, new, follows(old, one), follows(new, one))
        for one, old, new in zip(asked, said["before"], said["after"], strict=True)
    ]
    return Capability(
        level=LEVEL,
        requests=len(answers),
        followed=rate_change(
            np.array([one.followed_before for one in answers]),
            np.array([one.followed_after for one in answers]),
        ),
        answers=answers,
        tasks=_changes(scores["before"], scores["after"]),
    )


def _changes(before: Sequence[Score], after: Sequence[Score]) -> list[TaskChange]:
    new = {(one.task, one.metric): one for one in after}
    if set(new) != {(one.task, one.metric) for one in before}:
        raise ArgumentError(
            "tasks: lm_eval gave other metrics after than before; report it with the "
            "names of the tasks"
        )
    return [
        TaskChange(
            one.task, one.metric, one.value, new[one.task, one.metric].value,
            one.error, new[one.task, one.metric].error,
        )
        for one in before
    ]  # fmt: skip
