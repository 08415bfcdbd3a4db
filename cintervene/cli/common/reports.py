# SPDX-License-Identifier: Apache-2.0
"""What a defence writes: its intervention, and a report that model cards quote."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cintervene.errors import ArgumentError
from cintervene.intervention.intervention import Intervention
from cintervene.utils.json_ready import json_ready

INTERVENTION = "intervention.safetensors"
REPORT = "report.json"


def report_of(
    arguments: Namespace, intervention: Intervention
) -> dict[str, Any] | None:
    """Return what ``--report`` names, else the report beside the intervention if any.

    Raises
    ------
    ArgumentError
        The file that was named is no report.
    """
    named: Path | None = getattr(arguments, "report", None)
    path = named or arguments.intervention.parent / REPORT
    try:
        report = json.loads(path.read_text("utf-8"))
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


def write_report(directory: Path, content: Mapping[str, Any]) -> None:
    """Write a report of what is not measured by words."""
    text = json.dumps(json_ready(content), indent=2, ensure_ascii=False)
    (directory / REPORT).write_text(text + "\n", encoding="utf-8")
