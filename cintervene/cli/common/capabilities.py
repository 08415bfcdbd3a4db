# SPDX-License-Identifier: Apache-2.0
"""What a model can do before and after, as the flags of ``evaluate`` ask."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from cintervene.cli.common.budgets import instruction_count
from cintervene.cli.common.console import Console
from cintervene.evaluate import Capability, measure_capability
from cintervene.evaluate.capability.harness import check_installed
from cintervene.intervention.intervention import Intervention

__all__ = ["capability_of", "check_tasks", "named_tasks"]


def named_tasks(arguments: Namespace) -> list[str]:
    """The tasks that ``--tasks`` names."""
    return [name.strip() for name in (arguments.tasks or "").split(",") if name.strip()]


def check_tasks(arguments: Namespace) -> None:
    """Raise ArgumentError where tasks are asked for and lm_eval is missing.

    Before the work, not after it.
    """
    if named_tasks(arguments):
        check_installed()


def capability_of(
    arguments: Namespace,
    model: Any,
    tokenizer: Any,
    intervention: Intervention,
    console: Console,
) -> Capability:
    """Measure an intervention as the flags ask."""
    return measure_capability(
        model, tokenizer, intervention, prompts=instruction_count(arguments),
        tasks=named_tasks(arguments), limit=arguments.limit,
        template_options=arguments.template_options, progress=console,
    )  # fmt: skip
