# SPDX-License-Identifier: Apache-2.0
"""``cintervene defend``: from words to an intervention, a report and plots."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from cintervene.cli.commands import defend_texts
from cintervene.cli.commands.explain import as_dict
from cintervene.cli.common.console import Console
from cintervene.cli.common.failures import Exit
from cintervene.cli.common.inputs import load_named
from cintervene.cli.common.method_options import check_given
from cintervene.cli.common.output import print_json
from cintervene.cli.common.reports import INTERVENTION
from cintervene.cli.common.results import (
    asked_goals,
    tuning_reached,
    verdict_list,
)
from cintervene.cli.common.solving import solve
from cintervene.cli.common.sweeps import withheld
from cintervene.cli.common.words import read_forbidden
from cintervene.errors import ArgumentError, ModelError
from cintervene.evaluate import (
    WordMeasurement,
    goals_reached,
    measure,
    word_table,
    write_report,
)
from cintervene.intervention.adapter import applicable_form
from cintervene.intervention.intervention import Intervention
from cintervene.methods.pcr.resolve import choose_layers
from cintervene.models import find_decoder
from cintervene.models.targets import explanation_of
from cintervene.prompts.spelling import (
    check_spellable,
    surface_forms,
)
from cintervene.utils.staging import (
    StagedDirectory,
    check_place,
)


def run(arguments: Namespace, console: Console) -> Exit:
    """Make an intervention, measure it and store both, unless it crossed the limits."""
    check_given(arguments)
    texts = arguments.harmful is not None or arguments.examples is not None
    if arguments.method in ("tsr", "arr", "gate") or texts:
        return defend_texts.run(arguments, console)
    if arguments.forbid is None:
        raise ArgumentError(
            "--forbid: got none; give obedience or a file of words, "
            "or sentences as --examples, or requests as --harmful"
        )
    words = read_forbidden(arguments.forbid)
    if arguments.dry_run:
        return _dry_run(arguments, words, console)
    goals = asked_goals(arguments)
    with StagedDirectory(arguments.out) as stage:
        model, tokenizer = load_named(arguments, console)
        intervention = solve(arguments, model, tokenizer, console, forbid=words)
        if withheld(arguments, intervention, console):
            return Exit.GOAL_NOT_REACHED
        form = applicable_form(intervention, model)
        found = None
        if not arguments.no_evaluate:
            found = measure(model, tokenizer, form, progress=console)
        intervention.save(
            stage.path / INTERVENTION, beyond_limits=arguments.beyond_limits
        )
        write_report(stage.path, form, found, goals=goals)
        stage.commit()
    console.close()
    if arguments.json:
        print_json(_result(arguments, intervention, found))
    else:
        print(intervention.summary() if found is None else word_table(found, goals))
        print(f"\n{arguments.out / INTERVENTION} holds the change,", end=" ")
        print(f"{arguments.out / 'report.md'} says what it does")
    if found is None:
        reached = tuning_reached(intervention, goals)
    else:
        reached = goals_reached(found, goals)
    return Exit.DONE if reached else Exit.GOAL_NOT_REACHED


def _result(
    arguments: Namespace, intervention: Intervention, found: WordMeasurement | None
) -> dict[str, Any]:
    goals = asked_goals(arguments)
    return {
        "command": "defend",
        "out": str(arguments.out),
        "files": sorted(path.name for path in arguments.out.iterdir()),
        "options": intervention.options,
        "metrics": intervention.metrics,
        "measurement": None if found is None else found.to_dict(),
        "goals": [] if found is None else verdict_list(found, goals),
    }


def _dry_run(arguments: Namespace, words: Sequence[str], console: Console) -> Exit:
    """Say what would be done, which changes and writes nothing."""
    check_place(arguments.out)
    model, tokenizer = load_named(arguments, console)
    check_spellable(tokenizer, words)
    decoder = find_decoder(model)
    layers = choose_layers(arguments.layers, decoder.n_layers, "forbid")
    found = explanation_of(decoder, layers, arguments.matrix)
    for layer, reason in found.refused.items():
        raise ModelError(f"layer {layer} cannot be changed: {reason}")
    if arguments.json:
        print_json(
            {
                "command": "defend",
                "dry_run": True,
                "out": str(arguments.out),
                **as_dict(found),
                "words": {word: list(surface_forms(word)) for word in words},
                "method": arguments.method,
                "concepts": arguments.concepts,
                "strength": arguments.strength,
            }
        )
    else:
        print(found)
        print(f"{len(words)} words, each also after a space and in all its forms:")
        for word in words:
            print(f"  {', '.join(surface_forms(word))}")
        print(f"method {arguments.method}, concepts {arguments.concepts},", end=" ")
        print(f"strength {arguments.strength}")
        print(f"nothing was computed or written; {arguments.out} would hold the result")
    return Exit.DONE
