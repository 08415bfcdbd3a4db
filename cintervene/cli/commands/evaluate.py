# SPDX-License-Identifier: Apache-2.0
"""``cintervene evaluate``: what an intervention does to a model, measured anew."""

from __future__ import annotations

from argparse import Namespace
from contextlib import nullcontext

from cintervene.cli.commands import (
    evaluate_requests,
    study,
)
from cintervene.cli.common.console import Console
from cintervene.cli.common.failures import Exit
from cintervene.cli.common.inputs import load_named
from cintervene.cli.common.output import print_json
from cintervene.cli.common.results import (
    asked_goals,
    verdict_list,
)
from cintervene.cli.common.words import read_forbidden
from cintervene.errors import ArgumentError
from cintervene.evaluate import goals_reached, measure, word_table, write_report
from cintervene.export.cards.methods import kinds
from cintervene.intervention.adapter import applicable_form
from cintervene.intervention.intervention import Intervention
from cintervene.utils.staging import StagedDirectory

# Kinds of changes that are measured by words: those made for them, and unknown ones.
WORDS = {"forbid", ""}


def run(arguments: Namespace, console: Console) -> Exit:
    """Measure on held-out data, or run a study; with ``--out`` also write the report.

    Raises
    ------
    ArgumentError
        Neither or both were asked for.
    """
    asked = [arguments.defence, arguments.behaviours, arguments.safe]
    if all(one is None for one in asked):
        if arguments.intervention is None:
            raise ArgumentError(
                "--intervention, --defence: got neither; give the file of an "
                "intervention, or defences and --behaviours for a study"
            )
        return _measure(arguments, console)
    if arguments.intervention is not None:
        raise ArgumentError(
            f"--intervention: got {arguments.intervention} beside a study; give it as "
            "one of the --defence"
        )
    return study.run(arguments, console)


def _measure(arguments: Namespace, console: Console) -> Exit:
    words = None if arguments.forbid is None else read_forbidden(arguments.forbid)
    intervention = Intervention.load(arguments.intervention)
    made_for = set(kinds(intervention.options))
    if words is None and made_for and made_for.isdisjoint(WORDS):
        return evaluate_requests.run(arguments, intervention, console)
    goals = asked_goals(arguments)
    staging = nullcontext() if arguments.out is None else StagedDirectory(arguments.out)
    with staging as stage:
        model, tokenizer = load_named(arguments, console)
        form = applicable_form(intervention, model)
        found = measure(model, tokenizer, form, forbid=words, progress=console)
        if stage is not None:
            write_report(stage.path, form, found, goals=goals)
            stage.commit()
    console.close()
    if arguments.json:
        print_json(
            {
                "command": "evaluate",
                "out": None if arguments.out is None else str(arguments.out),
                "measurement": found.to_dict(),
                "goals": verdict_list(found, goals),
            }
        )
    else:
        print(word_table(found, goals))
    return Exit.DONE if goals_reached(found, goals) else Exit.GOAL_NOT_REACHED
