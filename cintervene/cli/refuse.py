# SPDX-License-Identifier: Apache-2.0
"""``cintervene defend --method tsr`` or ``arr``: from requests to an intervention."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cintervene.cli.console import Console
from cintervene.cli.failures import Exit
from cintervene.cli.loading import load_named
from cintervene.cli.output import print_json
from cintervene.cli.reports import INTERVENTION, REPORT
from cintervene.data import read_words
from cintervene.errors import ArgumentError
from cintervene.evaluate.json_ready import json_ready
from cintervene.models import Intervention, defend
from cintervene.staging import StagedDirectory

__all__ = ["run"]

OWN = "own"


def run(arguments: Namespace, console: Console) -> Exit:
    """Make an intervention and store it with what was seen while tuning."""
    if arguments.forbid is not None or arguments.dry_run:
        raise ArgumentError(
            "--forbid and --dry-run are for --method pcr; give --harmful"
        )
    own = arguments.harmful == OWN
    requests = None if own else read_words(arguments.harmful)
    with StagedDirectory(arguments.out) as stage:
        model, tokenizer = load_named(arguments, console)
        intervention = defend(
            model,
            tokenizer,
            method=arguments.method,
            harmful=requests,
            layers=arguments.layers,
            matrix=arguments.matrix,
            max_kl=arguments.max_kl,
            progress=console,
        )
        intervention.save(stage.path / INTERVENTION)
        _write(stage.path / REPORT, intervention)
        stage.commit()
    console.close()
    if arguments.json:
        print_json(
            {"command": "defend", "out": str(arguments.out)} | _told(intervention)
        )
    else:
        print(intervention.summary())
        print(_table(intervention.metrics["sweep"]))
        print(f"\n{arguments.out / INTERVENTION} holds the change")
    within = bool(intervention.metrics["within_limits"])
    return Exit.DONE if within else Exit.GOAL_NOT_REACHED


def _told(intervention: Intervention) -> dict[str, Any]:
    return {"options": intervention.options, "metrics": intervention.metrics}


def _write(path: Path, intervention: Intervention) -> None:
    text = json.dumps(json_ready(_told(intervention)), indent=2, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def _table(sweep: Sequence[dict[str, Any]]) -> str:
    """The strengths tried, on requests set aside."""
    lines = ["", "strength  refused  more benign refused  KL, nats a token"]
    for point in sweep:
        mark = "  chosen" if point["chosen"] else ""
        lines.append(
            f"{point['strength']:8.2f}  {point['refused']:7.1%}  "
            f"{point['false_refusals']:19.1%}  {point['kl']:16.4f}{mark}"
        )
    return "\n".join(lines)
