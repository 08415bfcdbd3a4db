# SPDX-License-Identifier: Apache-2.0
"""What was tried while tuning, as a table, and what is not written because of it."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from cintervene.cli.common.console import Console
from cintervene.cli.common.output import print_json
from cintervene.errors import InterventionError
from cintervene.intervention.acceptance import check_limits
from cintervene.intervention.intervention import Intervention

# Of a sweep: heading and format.
COLUMNS = {
    "strength": ("strength", ".2f"),
    "opening": ("opens at", ".2f"),
    "answering": ("in answers", ".2f"),
    "refused": ("refused", ".1%"),
    "false_refusals": ("more benign refused", ".1%"),
    "forbidden_ratio": ("perplexity, times", ".2f"),
    "benign_ratio": ("benign words', times", ".2f"),
    "kl": ("KL, nats a token", ".4f"),
}


def sweep_table(sweep: Sequence[dict[str, Any]]) -> str:
    """The strengths tried, on texts set aside."""
    shown = {name: head for name, head in COLUMNS.items() if name in sweep[0]}
    lines = ["", "  ".join(head for head, _ in shown.values())]
    for point in sweep:
        cells = [
            format(format(point[name], how), f">{len(head)}")
            for name, (head, how) in shown.items()
        ]
        lines.append("  ".join(cells) + ("  chosen" if point["chosen"] else ""))
    return "\n".join(lines)


def withheld(
    arguments: Namespace, intervention: Intervention, console: Console
) -> bool:
    """Tell whether a change is not to be written; then also show what was tried."""
    try:
        check_limits(intervention, arguments.beyond_limits)
    except InterventionError as error:
        reason = str(error)
    else:
        return False
    console.close()
    if arguments.json:
        print_json(
            {
                "command": "defend",
                "out": str(arguments.out),
                "files": [],
                "withheld": reason,
                "options": intervention.options,
                "metrics": intervention.metrics,
            }
        )
    else:
        print(intervention.summary())
        print(sweep_table(intervention.metrics["sweep"]))
    console.note(f"cintervene: nothing was written; {reason}")
    return True
