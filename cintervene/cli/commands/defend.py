# SPDX-License-Identifier: Apache-2.0
"""``cintervene defend``: from texts to an intervention, and a report about it.

At a terminal a menu follows, of all changes that were tried.
"""

from __future__ import annotations

import shlex
import sys
from argparse import Namespace
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cintervene.cli.arguments.parameters import flag
from cintervene.cli.commands.dry_run import dry_run
from cintervene.cli.common.budgets import evaluation_size, given_numbers
from cintervene.cli.common.config_file import write_config
from cintervene.cli.common.console import Console, print_json, say
from cintervene.cli.common.failures import Exit, with_flags
from cintervene.cli.common.inputs import load_named
from cintervene.cli.common.launched import launched_rank, staging, verdict
from cintervene.cli.common.method_options import requested_config
from cintervene.cli.common.reports import INTERVENTION
from cintervene.cli.common.results import sweep_table, tuning_reached, verdict_list
from cintervene.cli.dialogue.displays import display_for
from cintervene.cli.dialogue.menu import Menu
from cintervene.cli.dialogue.reading import at_terminal, prepare_reading
from cintervene.cli.dialogue.session import Session
from cintervene.cli.dialogue.sides import Sides
from cintervene.errors import ArgumentError, InterventionError
from cintervene.evaluate import (
    Goals,
    WordMeasurement,
    goals_reached,
    measure,
    word_table,
    write_report,
)
from cintervene.evaluate.words.goals import goals_of
from cintervene.intervention.acceptance import check_limits, crossed
from cintervene.intervention.adapter import applicable_form
from cintervene.intervention.intervention import Intervention
from cintervene.intervention.sources import template_options_of
from cintervene.methods.common.front import FrontPoint, kept_front
from cintervene.methods.config import MethodConfig
from cintervene.methods.defend import check_shared, defend
from cintervene.utils.progress import one_step
from cintervene.utils.staging import StagedDirectory


def run(arguments: Namespace, console: Console) -> Exit:
    """Make an intervention, measure it and store both, unless it crossed the limits."""
    config = requested_config(arguments)
    words: Sequence[str] | None = getattr(config, "forbid", None)
    _check_extent(arguments, words)
    if arguments.dry_run:
        return dry_run(arguments, config, words, console)
    check_shared(config)
    goals = _goals(arguments, config)
    asked = not (arguments.no_menu or arguments.json) and launched_rank() is None
    menu = asked and at_terminal()
    with staging(arguments.out) as stage:
        model, tokenizer = load_named(arguments, console)
        with _kept(menu) as front:
            intervention = defend(model, tokenizer, config, progress=console)
        work = _Work(arguments, config, goals, model, tokenizer, console)
        reason, measurement = _withheld(arguments, intervention), None
        if reason is None:
            measurement = work.measured(intervention)
            if stage is not None:
                beyond = arguments.beyond_limits
                work.write(stage.path, intervention, measurement, beyond)
                stage.commit()
    console.close()
    if reason is not None:
        code = _show_withheld(arguments, intervention, reason, console)
    else:
        code = work.verdict(intervention, measurement)
        if stage is not None:
            work.show(arguments.out, intervention, measurement)
    if menu:
        code = work.menu(front, intervention, reason is None) or code
    return code


@dataclass(frozen=True)
class _Work:
    """What was loaded and asked for, with which changes are measured and written."""

    arguments: Namespace
    config: MethodConfig
    goals: Goals
    model: Any
    tokenizer: Any
    console: Console

    def measured(self, intervention: Intervention) -> WordMeasurement | None:
        """Measure a change where there is something to measure and it is asked for."""
        words = getattr(self.config, "forbid", None)
        if not words or self.arguments.no_evaluate:
            return None
        form = applicable_form(intervention, self.model)
        size = evaluation_size(self.arguments)
        return measure(
            self.model, self.tokenizer, form, size=size, progress=self.console
        )

    def write(
        self,
        directory: Path,
        intervention: Intervention,
        measurement: WordMeasurement | None,
        beyond_limits: bool,
        note: str = "",
    ) -> None:
        """Write a change with its report, and what repeats the run."""
        arguments = self.arguments
        intervention.save(directory / INTERVENTION, beyond_limits=beyond_limits)
        write_config(
            directory, self.config, arguments.model, arguments.model_dtype, note
        )
        form = applicable_form(intervention, self.model)
        with one_step(self.console, "writing the report"):
            write_report(directory, form, measurement, goals=self.goals)

    def verdict(
        self, intervention: Intervention, measurement: WordMeasurement | None
    ) -> Exit:
        """What a change earns."""
        if measurement is None:
            return verdict(tuning_reached(intervention))
        return verdict(goals_reached(measurement, self.goals))

    def show(
        self,
        place: Path,
        intervention: Intervention,
        measurement: WordMeasurement | None,
    ) -> None:
        """Say what was written."""
        _show(self.arguments, place, intervention, measurement, self.goals)

    def menu(
        self, front: Sequence[FrontPoint], intervention: Intervention, saved: bool
    ) -> Exit | None:
        """Offer what was tried; see `Menu.run`."""
        prepare_reading()
        within = crossed(intervention) is None
        alone = FrontPoint({"chosen": True}, within, lambda: intervention)
        return Menu(
            front or [alone],
            self.arguments.out,
            saved,
            flags=self.arguments.flags,
            try_out=self._try,
            save=self._save,
            console=self.console,
        ).run()

    def _try(self, intervention: Intervention) -> None:
        """Chat with the model before and after a change."""
        options = template_options_of(intervention.options)
        sides = Sides(
            self.model, self.tokenizer, intervention, template_options=options
        )
        Session(sides, partial(display_for, sys.stdout), self.console).run()

    def _save(self, intervention: Intervention, number: int, place: Path) -> Exit:
        """Measure and write one of the points, as the chosen one is."""
        note = f"The change beside this file is point {number} of those that were tried"
        note += ", as it was chosen in the menu; the run chooses by itself."
        with StagedDirectory(place) as stage:
            measurement = self.measured(intervention)
            self.write(stage.path, intervention, measurement, True, note)
            stage.commit()
        self.console.close()
        self.show(place, intervention, measurement)
        return self.verdict(intervention, measurement)


def _kept(menu: bool) -> AbstractContextManager[list[FrontPoint]]:
    """Where the changes that are tried are kept, if somebody will be asked."""
    return kept_front() if menu else nullcontext([])


def _check_extent(arguments: Namespace, words: Sequence[str] | None) -> None:
    """Refuse what is about held-out data where nothing is measured on them.

    Raises
    ------
    ArgumentError
        Names the flag.
    """
    given = [
        name
        for name in ("max_obedience_loss", "no_evaluate")
        if getattr(arguments, name)
    ]
    sized = given_numbers(arguments, "evaluation")
    given += [f"evaluation_{name}" for name in sized]
    if given and words is None:
        raise ArgumentError(
            f"{flag(given[0])}: is for words (--forbid), which alone are measured on "
            "held-out data here; leave it out"
        )
    skipped = [name for name in given if name != "no_evaluate"]
    if skipped and arguments.no_evaluate:
        raise ArgumentError(
            f"{flag(skipped[0])}: is about held-out data, which --no-evaluate skips; "
            "leave one of them out"
        )


def _goals(arguments: Namespace, config: MethodConfig) -> Goals:
    """What the measurement is held to: the limits of the method, and obedience."""
    asked = {**config.to_dict(), "max_obedience_loss": arguments.max_obedience_loss}
    return goals_of(asked)


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
    place: Path,
    intervention: Intervention,
    measurement: WordMeasurement | None,
    goals: Goals,
) -> None:
    files = sorted(path.name for path in place.iterdir())
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
    change, page = place / INTERVENTION, place / "report.html"
    if measurement is not None:
        say(f"\n{change} holds the change, {page} says what it does")
        return
    say(f"\n{change} holds the change, {page} says how it was chosen; measure it with")
    model = f"{'--hub ' if arguments.hub else ''}--model {shlex.quote(arguments.model)}"
    say(
        f"  cintervene evaluate {model} --intervention {shlex.quote(str(change))} "
        "--out DIR"
    )


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
