# SPDX-License-Identifier: Apache-2.0
"""Tasks of EleutherAI's lm-evaluation-harness, where it is installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from torch import nn

from cintervene.errors import ArgumentError

__all__ = ["Score", "check_installed", "run_tasks"]


@dataclass(frozen=True, slots=True)
class Score:
    """One metric of one task.

    Attributes
    ----------
    task, metric : str
        As lm_eval names them; the metric with its filter.
    value : float
    error : float or None
        Its standard error, where lm_eval computes one.
    """

    task: str
    metric: str
    value: float
    error: float | None


def check_installed() -> None:
    """Raise ArgumentError where lm_eval is missing."""
    if find_spec("lm_eval") is None:
        raise ArgumentError(
            "tasks: got tasks of lm_eval, which is not installed; pip install "
            "'cintervene[ecosystem]', or leave them out"
        )


def run_tasks(
    model: nn.Module,
    tokenizer: Any,
    tasks: Sequence[Any],
    *,
    limit: int | None = None,
    batch_size: int = 8,
) -> list[Score]:
    """Run tasks on a model as it is.

    Parameters
    ----------
    model : nn.Module
        Of transformers.
    tokenizer
    tasks : sequence
        Names that lm_eval knows, or configurations of tasks.
    limit : int, optional
        Examples of each task; default: all.
    batch_size : int, default 8

    Raises
    ------
    ArgumentError
        lm_eval is not installed, or knows no such task.
    """
    check_installed()
    lm_eval = import_module("lm_eval")
    harness = import_module("lm_eval.models.huggingface")
    wrapped = harness.HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)
    try:
        found = lm_eval.simple_evaluate(wrapped, tasks=list(tasks), limit=limit)
    except (KeyError, ValueError) as error:
        raise ArgumentError(
            f"tasks: lm_eval cannot run {', '.join(map(str, tasks))} ({error}); "
            "`lm_eval ls tasks` lists those it knows"
        ) from error
    return list(_scores(found["results"]))


def _scores(results: Mapping[str, Mapping[str, Any]]) -> list[Score]:
    """Numbers with a metric's name ("acc,none"), each with its error."""
    scores = []
    for task, values in results.items():
        for name, value in values.items():
            metric, _, kind = name.partition(",")
            numeric = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not numeric or not kind or metric.endswith("_stderr"):
                continue
            error = values.get(f"{metric}_stderr,{kind}")
            label = metric if kind == "none" else f"{metric}, {kind}"
            known = float(error) if isinstance(error, (int, float)) else None
            scores.append(Score(task, label, float(value), known))
    return scores
