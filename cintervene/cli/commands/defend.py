# SPDX-License-Identifier: Apache-2.0
"""``cintervene defend``: from texts to an intervention, and a report about it."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cintervene.cli.arguments.parameters import flag
from cintervene.cli.commands.explain import as_dict
from cintervene.cli.common.budgets import evaluation_size, given_numbers
from cintervene.cli.common.config_file import write_config
from cintervene.cli.common.console import Console, print_json, say
from cintervene.cli.common.failures import Exit, with_flags
from cintervene.cli.common.inputs import load_named
from cintervene.cli.common.launched import staging, verdict
from cintervene.cli.common.method_options import requested_config
from cintervene.cli.common.reports import INTERVENTION, write_json_report
from cintervene.cli.common.results import (
    goals_of,
    sweep_table,
    tuning_reached,
    verdict_list,
)
from cintervene.errors import ArgumentError, InterventionError, ModelError
from cintervene.evaluate import (
    Goals,
    WordMeasurement,
    goals_reached,
    measure,
    word_table,
    write_report,
)
from cintervene.intervention.acceptance import check_limits
from cintervene.intervention.adapter import applicable_form
from cintervene.intervention.intervention import Intervention
from cintervene.methods.config import MethodConfig
from cintervene.methods.defend import defend
from cintervene.methods.pcr.resolve import choose_layers
from cintervene.models.parts import ModelParts
from cintervene.prompts.spelling import surface_forms, words_to_forbid
from cintervene.utils.staging import check_place


def run(arguments: Namespace, console: Console) -> Exit:
    """Make an intervention, measure it and store both, unless it crossed the limits."""
    config = requested_config(arguments)
    words: Sequence[str] | None = getattr(config, "forbid", None)
    _check_extent(arguments, words)
    if arguments.dry_run:
        return _dry_run(arguments, config, words or (), console)
    goals, size = _goals(arguments, config), evaluation_size(arguments)
    with staging(arguments.out) as stage:
        model, tokenizer = load_named(arguments, console)
        intervention = defend(model, tokenizer, config, progress=console)
        reason = _withheld(arguments, intervention)
        if reason is not None:
            return _show_withheld(arguments, intervention, reason, console)
        form, measurement = applicable_form(intervention, model), None
        if words and not arguments.no_evaluate:
            measurement = measure(model, tokenizer, form, size=size, progress=console)
        if stage is not None:
            _store(stage.path, arguments, config, intervention)
            if words:
                write_report(stage.path, form, measurement, goals=goals)
            else:
                write_json_report(stage.path, _tuned(intervention))
            stage.commit()
    console.close()
    if stage is not None:
        _show(arguments, intervention, measurement, goals)
    if measurement is None:
        return verdict(tuning_reached(intervention))
    return verdict(goals_reached(measurement, goals))


def _store(
    directory: Path,
    arguments: Namespace,
    config: MethodConfig,
    intervention: Intervention,
) -> None:
    """Write the change, and what repeats the run."""
    file = directory / INTERVENTION
    intervention.save(file, beyond_limits=arguments.beyond_limits)
    write_config(directory, config, arguments.model, arguments.model_dtype)


def _check_extent(arguments: Namespace, words: Sequence[str] | None) -> None:
    """Refuse what is about held-out data where nothing is measured on them.

    Raises
    ------
    ArgumentError
        Names the flag.
    """
    given = [
        name
        for name in ("max_obedience_loss", "no_evaluate", "dry_run")
        if getattr(arguments, name)
    ]
    sized = given_numbers(arguments, "evaluation")
    given += [f"evaluation_{name}" for name in sized]
    if given and words is None:
        raise ArgumentError(
            f"{flag(given[0])}: is for words (--forbid), which alone are measured on "
            "held-out data here, or listed beforehand; leave it out"
        )
    skipped = [name for name in given if name not in ("no_evaluate", "dry_run")]
    if skipped and arguments.no_evaluate:
        raise ArgumentError(
            f"{flag(skipped[0])}: is about held-out data, which --no-evaluate skips; "
            "leave one of them out"
        )


def _goals(arguments: Namespace, config: MethodConfig) -> Goals:
    """What the measurement is held to: the limits of the method, and obedience."""
    asked = {**config.to_dict(), "max_obedience_loss": arguments.max_obedience_loss}
    return goals_of(asked)


def _tuned(intervention: Intervention) -> dict[str, Any]:
    """What is known without a measurement.

    Without the digest nobody could tell which change it is about.
    """
    return {
        "digest": intervention.digest,
        "options": intervention.options,
        "metrics": intervention.metrics,
    }


def _withheld(arguments: Namespace, intervention: Intervention) -> str | None:
    """Why a change is not to be written; None if it is."""
    try:
        check_limits(intervention, arguments.beyond_limits)
    except InterventionError as error:
        return str(error)
    return None


def _show_withheld(
    arguments: Namespace, intervention: Intervention, reason: str, console: Console
) -> Exit:
    """Show what was tried, and say that nothing was written."""
    console.close()
    if arguments.json:
        result = _result(arguments, intervention, [])
        print_json({**result, "withheld": reason})
    else:
        say(intervention.summary())
        say(sweep_table(intervention.metrics.get("sweep", ())))
    # A limit that was crossed is no flag to be mended, but this may be given.
    advice = with_flags(reason, {flag("beyond_limits")})
    console.note(f"cintervene: nothing was written; {advice}")
    return Exit.GOAL_NOT_REACHED


def _show(
    arguments: Namespace,
    intervention: Intervention,
    measurement: WordMeasurement | None,
    goals: Goals,
) -> None:
    files = sorted(path.name for path in arguments.out.iterdir())
    if arguments.json:
        about = None if measurement is None else measurement.to_dict()
        verdicts = [] if measurement is None else verdict_list(measurement, goals)
        result = _result(arguments, intervention, files)
        print_json({**result, "measurement": about, "goals": verdicts})
        return
    if measurement is None:
        say(intervention.summary())
        say(sweep_table(intervention.metrics.get("sweep", ())))
    else:
        say(word_table(measurement, goals))
    place: Path = arguments.out
    says = f", {place / 'report.md'} says what it does" if "report.md" in files else ""
    say(f"\n{place / INTERVENTION} holds the change{says}")


def _result(
    arguments: Namespace, intervention: Intervention, files: Sequence[str]
) -> dict[str, Any]:
    return {
        "command": "defend",
        "out": str(arguments.out),
        "files": files,
        "options": intervention.options,
        "metrics": intervention.metrics,
    }


def _dry_run(
    arguments: Namespace, config: MethodConfig, words: Sequence[str], console: Console
) -> Exit:
    """Say what would be done, which changes and writes nothing."""
    check_place(arguments.out)
    model, tokenizer = load_named(arguments, console)
    words = words_to_forbid(tokenizer, words)
    parts = ModelParts.find(model)
    asked = config.to_dict()
    able = parts.changeable(asked["matrix"])
    layers = choose_layers(config.layers, parts.n_layers, "forbid", able)
    explanation = parts.explain(layers, asked["matrix"])
    for layer, reason in explanation.refused.items():
        raise ModelError(f"layer {layer} cannot be changed: {reason}")
    plan = {name: asked[name] for name in ("method", "concepts", "strength")}
    if arguments.json:
        print_json(
            {
                "command": "defend",
                "dry_run": True,
                "out": str(arguments.out),
                **as_dict(explanation),
                "words": {word: list(surface_forms(word)) for word in words},
                **plan,
            }
        )
        return Exit.DONE
    say(explanation)
    say(f"{len(words)} words, each also after a space and in all its forms:")
    for word in words:
        say(f"  {', '.join(surface_forms(word))}")
    say(", ".join(f"{name} {value}" for name, value in plan.items()))
    say(f"nothing was computed or written; {arguments.out} would hold the result")
    return Exit.DONE
