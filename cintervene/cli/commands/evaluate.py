# SPDX-License-Identifier: Apache-2.0
"""``cintervene evaluate``: what an intervention does to a model, measured anew."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence

from cintervene.cli.commands import study
from cintervene.cli.common.budgets import (
    answer_tokens,
    evaluation_size,
    request_limit,
)
from cintervene.cli.common.capabilities import capability_of, check_tasks
from cintervene.cli.common.console import Console, print_json, say
from cintervene.cli.common.failures import Exit
from cintervene.cli.common.inputs import load_named, read_texts
from cintervene.cli.common.launched import staging, verdict
from cintervene.cli.common.reports import write_json_report
from cintervene.cli.common.results import verdict_list
from cintervene.errors import ArgumentError
from cintervene.evaluate import (
    capability_table,
    goals_reached,
    measure,
    measure_requests,
    report_content,
    request_table,
    word_table,
    write_report,
)
from cintervene.evaluate.words.goals import goals_of
from cintervene.intervention.adapter import applicable_form
from cintervene.intervention.intervention import Intervention
from cintervene.intervention.sources import made_for_words


def run(arguments: Namespace, console: Console) -> Exit:
    """Measure on held-out data, or run a study; with ``--out`` also write the report.

    Raises
    ------
    ArgumentError
        Neither or both were asked for.
    """
    for_study = [arguments.defence, arguments.behaviours, arguments.safe]
    if any(one is not None for one in for_study):
        if arguments.intervention is not None:
            raise ArgumentError(
                f"--intervention: got {arguments.intervention} beside a study; give it "
                "as one of the --defence"
            )
        return study.run(arguments, console)
    if arguments.intervention is None:
        raise ArgumentError(
            "--intervention, --defence: got neither; give the file of an "
            "intervention, or defences and --behaviours for a study"
        )
    words = None if arguments.forbid is None else read_texts("forbid", arguments.forbid)
    intervention = Intervention.load(arguments.intervention)
    if words is None and not any(made_for_words(intervention.options)):
        return _measure_requests(arguments, intervention, console)
    return _measure_words(arguments, intervention, words, console)


def _measure_words(
    arguments: Namespace,
    intervention: Intervention,
    words: Sequence[str] | None,
    console: Console,
) -> Exit:
    """Measure how likely words are; those it was made for if none are given."""
    goals, size = goals_of(vars(arguments)), evaluation_size(arguments)
    check_tasks(arguments)
    with staging(arguments.out) as stage:
        model, tokenizer = load_named(arguments, console)
        form = applicable_form(intervention, model)
        measurement = measure(
            model, tokenizer, form, forbid=words, split=arguments.split, size=size,
            template_options=arguments.template_options, progress=console,
        )  # fmt: skip
        capability = capability_of(arguments, model, tokenizer, form, console)
        if stage is not None:
            write_report(
                stage.path, form, measurement, goals=goals, capability=capability
            )
            stage.commit()
    console.close()
    if arguments.json:
        verdicts = verdict_list(measurement, goals)
        result = {"measurement": measurement.to_dict(), "goals": verdicts}
        able = {"capability": capability.to_dict()}
        print_json({**_about(arguments), **result, **able})
    else:
        say(word_table(measurement, goals))
        say(capability_table(capability))
    return verdict(goals_reached(measurement, goals))


def _measure_requests(
    arguments: Namespace, intervention: Intervention, console: Console
) -> Exit:
    """Measure which held-out requests are refused."""
    limit = request_limit(arguments)
    check_tasks(arguments)
    with staging(arguments.out) as stage:
        model, tokenizer = load_named(arguments, console)
        form = applicable_form(intervention, model)
        measurement = measure_requests(
            model, tokenizer, form, limit=limit, tokens=answer_tokens(arguments),
            depths=arguments.depths, split=arguments.split,
            template_options=arguments.template_options, progress=console,
        )  # fmt: skip
        capability = capability_of(arguments, model, tokenizer, form, console)
        if stage is not None:
            report = report_content(intervention, capability=capability)
            write_json_report(stage.path, {**report, "requests": measurement.to_dict()})
            stage.commit()
    console.close()
    if arguments.json:
        result = {
            "requests": measurement.to_dict(), "capability": capability.to_dict()
        }  # fmt: skip
        print_json({**_about(arguments), **result})
    else:
        say(request_table(measurement))
        say(capability_table(capability))
    return Exit.DONE


def _about(arguments: Namespace) -> dict[str, str | None]:
    out = None if arguments.out is None else str(arguments.out)
    return {"command": "evaluate", "out": out}
