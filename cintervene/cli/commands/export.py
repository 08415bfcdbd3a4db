# SPDX-License-Identifier: Apache-2.0
"""``cintervene export``: an intervention in the forms that are deployed."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from cintervene.cli.commands import rewrite
from cintervene.cli.common.console import Console
from cintervene.cli.common.failures import Exit
from cintervene.cli.common.measuring import quoted
from cintervene.cli.common.output import print_json
from cintervene.errors import ArgumentError
from cintervene.export import Artefact, gguf, lora
from cintervene.export.cards.card import Report
from cintervene.intervention.acceptance import check_limits
from cintervene.intervention.intervention import Intervention


def run(arguments: Namespace, console: Console) -> Exit:
    """Write an adapter or a checkpoint."""
    if arguments.to == "checkpoint":
        return rewrite.run(arguments, console)
    intervention = Intervention.load(arguments.intervention)
    # Here, because measuring takes minutes.
    check_limits(intervention, arguments.beyond_limits)
    report = quoted(arguments, intervention, console)
    made = _adapter(arguments, intervention, report)
    if arguments.json:
        print_json(
            {
                "command": "export",
                "to": arguments.to,
                "out": str(made.path),
                "files": sorted(path.name for path in made.path.iterdir()),
                "rank": made.rank,
                "errors": made.errors,
            }
        )
    else:
        worst = max(made.errors.values())
        print(f"{made.path}: rank {made.rank}; read again, the change is off", end=" ")
        print(f"by {worst:.1e} of its norm at most")
    return Exit.DONE


def _adapter(
    arguments: Namespace, intervention: Intervention, report: Report | None
) -> Artefact:
    base = arguments.base
    options: dict[str, Any] = {
        "dtype": arguments.dtype,
        "report": report,
        "beyond_limits": arguments.beyond_limits,
    }
    if arguments.to == "lora":
        return lora(intervention, arguments.out, base=base, **options)
    if base is None:
        raise ArgumentError(
            "--base: is missing; give the .gguf file that the adapter shall be used on"
        )
    return gguf(intervention, arguments.out, base, **options)
