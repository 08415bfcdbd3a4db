# SPDX-License-Identifier: Apache-2.0
"""``cintervene compare``: whether a model was edited, where, and by what."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import asdict
from typing import Any

from cintervene.cli.common.console import Console, print_json, say
from cintervene.cli.common.failures import Exit
from cintervene.cli.common.inputs import load_as_asked
from cintervene.export import compare
from cintervene.intervention.intervention import Intervention
from cintervene.utils.homes import expanded


def run(arguments: Namespace, console: Console) -> Exit:
    """Print what differs; done if that is nothing, or all explained."""
    given = [Intervention.load(path) for path in arguments.intervention]
    before, after = (
        _model(arguments, spec, console) for spec in (arguments.before, arguments.after)
    )
    found = compare(before, after, given, progress=console)
    console.close()
    if arguments.json:
        print_json(
            {
                "command": "compare",
                "tensors": found.tensors,
                "same": found.same,
                "explained": found.explained,
                "interventions": [str(path) for path in arguments.intervention],
                "differences": [asdict(one) for one in found.differences],
            }
        )
    else:
        say(found)
    return Exit.DONE if found.explained else Exit.GOAL_NOT_REACHED


def _model(arguments: Namespace, spec: str, console: Console) -> Any:
    path = expanded(spec)
    return path if path.is_dir() else load_as_asked(arguments, spec, console)[0]
