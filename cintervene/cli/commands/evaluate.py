# SPDX-License-Identifier: Apache-2.0
"""``cintervene evaluate``: what an intervention does to a model, measured anew."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from typing import Any

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
from cintervene.cli.common.results import verdict_list
from cintervene.errors import ArgumentError
from cintervene.evaluate import (
    Capability,
    Goals,
    RequestMeasurement,
    WordMeasurement,
    capability_table,
    goals_reached,
    measure,
    measure_requests,
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
    return _measure(arguments, intervention, words, console)


def _measure(
    arguments: Namespace,
    intervention: Intervention,
    words: Sequence[str] | None,
    console: Console,
) -> Exit:
    """Measure what it was made for, or the words that are given; write and show it."""
    goals, by_words = goals_of(vars(arguments)), made_for_words(intervention.options)
    check_tasks(arguments)
    measurement = requests = None
    with staging(arguments.out) as stage:
        model, tokenizer = load_named(arguments, console)
        form = applicable_form(intervention, model)
        if words is not None or any(by_words):
            measurement = measure(
                model, tokenizer, form, forbid=words, split=arguments.split,
                size=evaluation_size(arguments),
                template_options=arguments.template_options, progress=console,
            )  # fmt: skip
        if words is None and not all(by_words):
            requests = measure_requests(
                model, tokenizer, form, limit=request_limit(arguments),
                tokens=answer_tokens(arguments), depths=arguments.depths,
                split=arguments.split, template_options=arguments.template_options,
                progress=console,
            )  # fmt: skip
        capability = capability_of(arguments, model, tokenizer, form, console)
        if stage is not None:
            write_report(
                stage.path, form, measurement, goals=goals, capability=capability,
                requests=requests,
            )  # fmt: skip
            stage.commit()
    console.close()
    if arguments.json:
        _print(arguments, measurement, requests, capability, goals)
    else:
        if measurement is not None:
            say(word_table(measurement, goals))
        if requests is not None:
            say(request_table(requests))
        say(capability_table(capability))
    if measurement is None:
        return Exit.DONE
    return verdict(goals_reached(measurement, goals))


def _print(
    arguments: Namespace,
    measurement: WordMeasurement | None,
    requests: RequestMeasurement | None,
    capability: Capability,
    goals: Goals,
) -> None:
    """Print what was measured as JSON."""
    result: dict[str, Any] = (
        {} if requests is None else {"requests": requests.to_dict()}
    )
    if measurement is not None:
        verdicts = verdict_list(measurement, goals)
        result |= {"measurement": measurement.to_dict(), "goals": verdicts}
    able = {"capability": capability.to_dict()}
    print_json({**_about(arguments), **result, **able})


def _about(arguments: Namespace) -> dict[str, str | None]:
    out = None if arguments.out is None else str(arguments.out)
    return {"command": "evaluate", "out": out}
