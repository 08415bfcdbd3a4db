# SPDX-License-Identifier: Apache-2.0
"""``cintervene evaluate`` of a change that was not made for words."""

from __future__ import annotations

from argparse import Namespace
from contextlib import nullcontext

from cintervene.cli.common.console import Console
from cintervene.cli.common.failures import Exit
from cintervene.cli.common.inputs import load_named
from cintervene.cli.common.output import print_json
from cintervene.cli.common.reports import write_report
from cintervene.evaluate import measure_requests, report_content, request_table
from cintervene.intervention.adapter import applicable_form
from cintervene.intervention.intervention import Intervention
from cintervene.utils.staging import StagedDirectory

__all__ = ["run"]


def run(arguments: Namespace, intervention: Intervention, console: Console) -> Exit:
    """Measure which held-out requests are refused; with ``--out`` keep a report."""
    limit = {} if arguments.limit is None else {"limit": arguments.limit}
    staging = nullcontext() if arguments.out is None else StagedDirectory(arguments.out)
    with staging as stage:
        model, tokenizer = load_named(arguments, console)
        form = applicable_form(intervention, model)
        found = measure_requests(
            model, tokenizer, form, tokens=arguments.tokens, progress=console, **limit
        )
        if stage is not None:
            content = {**report_content(intervention), "requests": found.to_dict()}
            write_report(stage.path, content)
            stage.commit()
    console.close()
    if arguments.json:
        out = None if arguments.out is None else str(arguments.out)
        told = {"command": "evaluate", "out": out, "requests": found.to_dict()}
        print_json(told)
    else:
        print(request_table(found))
    return Exit.DONE
