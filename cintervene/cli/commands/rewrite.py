# SPDX-License-Identifier: Apache-2.0
"""``cintervene apply`` and ``revert``: copies of saved models with other weights."""

from __future__ import annotations

import shutil
from argparse import Namespace
from pathlib import Path

from safetensors import SafetensorError

from cintervene.cli.common.console import Console
from cintervene.cli.common.failures import Exit
from cintervene.cli.common.measuring import quoted
from cintervene.cli.common.output import print_json
from cintervene.export.checkpoint.write import (
    revert_directory,
    write_checkpoint,
)
from cintervene.intervention.acceptance import check_limits
from cintervene.intervention.intervention import Intervention
from cintervene.models import load
from cintervene.utils.staging import StagedDirectory

# Where models that are not directories of safetensors are written to for a while.
CONVERTED = ".converted"


def run(arguments: Namespace, console: Console) -> Exit:
    """Write the changed model, or the one that was there before the change."""
    intervention = Intervention.load(arguments.intervention)
    reverting = arguments.command == "revert"
    if not reverting:
        # Here, because a model that is no directory is written first.
        check_limits(intervention, arguments.beyond_limits)
    found = {"command": arguments.command, "out": str(arguments.out)}
    with StagedDirectory(arguments.out) as stage:
        source = _as_directory(arguments.model, arguments.hub, stage.path, console)
        console.note(f"writing {arguments.out}")
        if reverting:
            revert_directory(intervention, source, stage.path)
            changed, said = list(intervention.edits), "are what they were, bit by bit"
        else:
            report = quoted(arguments, intervention, console, source)
            made = write_checkpoint(
                intervention,
                source,
                stage.path,
                report,
                beyond_limits=arguments.beyond_limits,
            )
            changed, said = made.changed, "changed"
        if source.parent == stage.path:
            shutil.rmtree(source)
        stage.commit()
    unchanged = [name for name in intervention.edits if name not in changed]
    if arguments.json:
        print_json({**found, "weights": changed, "unchanged": unchanged})
        return Exit.DONE
    print(f"{arguments.out}: {len(changed)} weights {said}")
    if unchanged:
        print(f"lost in the rounding: {', '.join(unchanged)}")
    return Exit.DONE


def _as_directory(spec: str, hub: bool, stage: Path, console: Console) -> Path:
    """Return where the model's files are; write them below `stage` if need be."""
    path = Path(spec).expanduser()
    if path.is_dir():
        return path
    model, tokenizer = load(spec, hub=hub, progress=console)
    directory = stage / CONVERTED
    try:
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)
    except SafetensorError as error:
        raise OSError(str(error)) from error
    return directory
