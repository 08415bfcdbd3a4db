# SPDX-License-Identifier: Apache-2.0
"""What the model card of an export quotes: a report, or a measurement of the files."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from cintervene.cli.common.console import Console
from cintervene.cli.common.reports import report_of
from cintervene.errors import ArgumentError
from cintervene.evaluate import measure, measure_requests, report_content
from cintervene.export.cards.card import Report
from cintervene.export.cards.methods import kinds
from cintervene.intervention.intervention import Intervention
from cintervene.models import load

__all__ = ["quoted"]


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
        return report_of(arguments, intervention)
    if arguments.report is not None:
        raise ArgumentError("--measure, --report: got both; give one of them")
    place = arguments.model if source is None else str(source)

    def measured(form: Intervention) -> dict[str, Any]:
        model, tokenizer = load(place, hub=arguments.hub, progress=console)
        asked, found = set(kinds(form.options)), None
        if "forbid" in asked:
            found = measure(model, tokenizer, form, progress=console)
        report = report_content(intervention, found)
        if asked != {"forbid"}:
            report["requests"] = measure_requests(
                model, tokenizer, form, limit=arguments.limit, progress=console
            ).to_dict()
        console.close()
        return report

    return measured
