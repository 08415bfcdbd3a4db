# SPDX-License-Identifier: Apache-2.0
"""``cintervene defend`` of requests or examples: from texts to an intervention."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from cintervene.cli.common.console import Console
from cintervene.cli.common.failures import Exit
from cintervene.cli.common.inputs import load_named
from cintervene.cli.common.output import print_json
from cintervene.cli.common.reports import (
    INTERVENTION,
    write_report,
)
from cintervene.cli.common.results import (
    asked_goals,
    tuning_reached,
)
from cintervene.cli.common.solving import solve
from cintervene.cli.common.sweeps import (
    sweep_table,
    withheld,
)
from cintervene.data import harmful_prompts, read_words
from cintervene.errors import ArgumentError
from cintervene.intervention.acceptance import crossed
from cintervene.intervention.intervention import Intervention
from cintervene.utils.staging import StagedDirectory

__all__ = ["run"]

OWN = "own"


def run(arguments: Namespace, console: Console) -> Exit:
    """Make an intervention and store it with what was seen while tuning."""
    if arguments.forbid is not None or arguments.dry_run:
        raise ArgumentError(
            "--forbid and --dry-run are for words and --method pcr; give --harmful or "
            "--examples alone"
        )
    given = _read_texts(arguments)
    with StagedDirectory(arguments.out) as stage:
        model, tokenizer = load_named(arguments, console)
        intervention = solve(arguments, model, tokenizer, console, **given)
        if withheld(arguments, intervention, console):
            return Exit.GOAL_NOT_REACHED
        intervention.save(
            stage.path / INTERVENTION, beyond_limits=arguments.beyond_limits
        )
        # Without the digest nobody could tell which change the report is about.
        told = {"digest": intervention.digest, **_told(intervention)}
        write_report(stage.path, told)
        stage.commit()
    console.close()
    if arguments.json:
        print_json(
            {"command": "defend", "out": str(arguments.out)} | _told(intervention)
        )
    else:
        print(intervention.summary())
        print(sweep_table(intervention.metrics["sweep"]))
        print(f"\n{arguments.out / INTERVENTION} holds the change")
    if arguments.method == "pcr":
        reached = tuning_reached(intervention, asked_goals(arguments))
    else:
        reached = crossed(intervention) is None
    return Exit.DONE if reached else Exit.GOAL_NOT_REACHED


def _read_texts(arguments: Namespace) -> dict[str, Sequence[str]]:
    """The examples or requests asked for; without any, the package's requests."""
    given: dict[str, Sequence[str]] = {}
    if arguments.examples is not None:
        given["examples"] = read_words(arguments.examples)
    if arguments.harmful is not None or not given:
        given["harmful"] = _read_requests(arguments.harmful or OWN)
    return given


def _read_requests(source: str) -> Sequence[str]:
    """The package's requests, or those of a file, one a line."""
    if source == OWN:
        return [prompt.text for prompt in harmful_prompts("train")]
    return read_words(source)


def _told(intervention: Intervention) -> dict[str, Any]:
    return {"options": intervention.options, "metrics": intervention.metrics}
