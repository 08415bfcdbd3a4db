# SPDX-License-Identifier: Apache-2.0
"""Reports that defences write and model cards quote, or what makes one for a card."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from cintervene.cli.common.console import Console
from cintervene.cli.common.inputs import load_as_asked
from cintervene.errors import ArgumentError
from cintervene.evaluate import measure, measure_requests, report_content
from cintervene.export.cards.card import Report
from cintervene.intervention.intervention import Intervention
from cintervene.intervention.sources import made_for_words
from cintervene.utils.json_text import parse_json

__all__ = ["INTERVENTION", "quoted"]

INTERVENTION = "intervention.safetensors"
REPORT = "report.json"


def quoted(
    arguments: Namespace,
    intervention: Intervention,
    console: Console,
    source: Path | None = None,
) -> Report | None:
    """Return a report, or with ``--measure`` what makes one of what was read again.

    Parameters
    ----------
    source : Path, optional
        Where the model is, if not at ``--model``.

    Raises
    ------
    ArgumentError
        Both are asked for, or the report is none.
    """
    if not getattr(arguments, "measure", False):
        return _stored(arguments, intervention)
    if arguments.report is not None:
        raise ArgumentError("--measure, --report: got both; give one of them")
    options = arguments.template_options
    place = arguments.model if source is None else str(source)

    def measured(form: Intervention) -> dict[str, Any]:
        model, tokenizer = load_as_asked(arguments, place, console)
        by_words, measurement = made_for_words(form.options), None
        if any(by_words):
            measurement = measure(
                model, tokenizer, form, template_options=options, progress=console
            )
        report = report_content(intervention, measurement)
        if not all(by_words):
            report["requests"] = measure_requests(
                model,
                tokenizer,
                form,
                limit=arguments.limit,
                template_options=options,
                progress=console,
            ).to_dict()
        console.close()
        return report

    return measured


def _stored(arguments: Namespace, intervention: Intervention) -> dict[str, Any] | None:
    """What ``--report`` names, else the report beside the intervention if any.

    Raises
    ------
    ArgumentError
        The file that was named is no report.
    """
    named: Path | None = arguments.report
    path = named or arguments.intervention.parent / REPORT
    try:
        report = parse_json(path.read_text("utf-8"))
        digest = report["digest"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        if named is None:
            return None
        raise ArgumentError(
            f"--report: {path} cannot be read as a report ({error}); give the "
            f"{REPORT} of the defence"
        ) from error
    if named is None and digest != intervention.digest:
        return None
    return dict(report)
