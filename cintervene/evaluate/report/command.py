# SPDX-License-Identifier: Apache-2.0
"""The command that makes a change again, as reports and model cards give it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

from cintervene.evaluate.report.accounts import recorded
from cintervene.evaluate.report.blocks import Block, Program
from cintervene.intervention.intervention import Intervention
from cintervene.methods.registry import all_methods
from cintervene.prompts.calibration_size import CalibrationSize, Sizes
from cintervene.utils.escaping import printable
from cintervene.utils.parameters import Parameter
from cintervene.utils.ranges import takes_file

__all__ = ["command"]

AGAIN = (
    "{files} stands for a file with one text a line. `defend` writes all texts to the "
    "`config.toml` beside the intervention, with which `--config` repeats the run."
)


def command(intervention: Intervention) -> Iterator[Block]:
    """The command, and what it lacks; nothing of changes that were put together."""
    options = intervention.options
    if options.get("method") not in all_methods():
        return
    changed = {
        name: (one, value)
        for name, (one, value) in recorded(_resolved(intervention)).items()
        if not _is_default(one, value)
    }
    flags: list[str] = []
    others: list[str] = []
    for name, (one, value) in changed.items():
        if one.flag:
            flags.append(f"{_flag(name)} {_argument(one, value)}")
        elif isinstance(one.range, Sizes) and isinstance(value, dict):
            flags += _sizes(value)
        else:
            others.append(f"`{name}` {value}")
    if intervention.metrics.get("within_limits") is False:
        flags.append("--beyond-limits")
    model = shlex.quote(printable(intervention.model or "MODEL"))
    yield Program(
        f"cintervene defend --model {model} --method {options['method']} "
        f"{''.join(f'{flag} ' for flag in flags)}--out OUT"
    )
    files = {o.range.metavar for o, _ in changed.values() if takes_file(o.range)}
    if files:
        yield AGAIN.format(files=" or ".join(sorted(files)))
    if others:
        yield (
            "Set from Python, for which the command has no option: "
            f"{', '.join(others)}."
        )


def _resolved(intervention: Intervention) -> dict[str, Any]:
    """The options, with the strength that was chosen.

    Where each word has its own no single one stands for them, and they are chosen anew.
    """
    if "strengths" in intervention.metrics:
        return dict(intervention.options)
    chosen = {"strength": intervention.metrics.get("strength")}
    known = {name: value for name, value in chosen.items() if value is not None}
    return {**intervention.options, **known}


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _sizes(value: dict[str, int]) -> Iterator[str]:
    """Flags for how much was calibrated with: a budget, and what differs from it."""
    known = {name: value[name] for name in CalibrationSize.names() if name in value}

    def beside(budget: str) -> dict[str, int]:
        of_budget = CalibrationSize.named(budget).to_dict()
        return {name: one for name, one in known.items() if one != of_budget[name]}

    budgets = CalibrationSize.budgets
    budget = min(budgets, key=lambda one: (len(beside(one)), len(budgets[one])))
    if budgets[budget]:
        yield f"--budget {budget}"
    for name, number in beside(budget).items():
        yield f"{_flag(f'calibration_{name}')} {number}"


def _is_default(one: Parameter, value: Any) -> bool:
    """Whether nothing has to be given for it; of private texts the number is known."""
    return value == one.range.to_json(one.default) or (one.private and value == 0)


def _argument(one: Parameter, value: Any) -> str:
    """A value as the command takes it, not rounded."""
    if takes_file(one.range):
        return one.range.metavar
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return (" " if one.range.values > 1 else ",").join(map(str, value))
    return "none" if value is None else shlex.quote(printable(value))
