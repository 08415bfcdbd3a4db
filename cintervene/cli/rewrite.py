# SPDX-License-Identifier: Apache-2.0
"""``cintervene apply`` and ``revert``: copies of saved models with other weights."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from safetensors import SafetensorError

from cintervene.cli.console import Console
from cintervene.cli.failures import Exit
from cintervene.cli.output import print_json
from cintervene.models import Intervention, load
from cintervene.models.checkpoint import apply_to_directory, revert_directory
from cintervene.staging import StagedDirectory


def run(arguments: Namespace, console: Console) -> Exit:
    """Write the changed model, or the one that was there before the change."""
    intervention = Intervention.load(arguments.intervention)
    with StagedDirectory(arguments.out) as stage:
        source = _as_directory(arguments.model, arguments.hub, stage.path, console)
        console.note(f"writing {arguments.out}")
        if arguments.command == "apply":
            applied = apply_to_directory(intervention, source, stage.path)
            changed, unchanged = applied.changed, applied.unchanged
            said = f"{len(changed)} weights changed"
        else:
            revert_directory(intervention, source, stage.path)
            changed, unchanged = list(intervention.edits), []
            said = f"{len(changed)} weights are what they were, bit by bit"
        stage.commit()
    if arguments.json:
        print_json(
            {
                "command": arguments.command,
                "out": str(arguments.out),
                "weights": changed,
                "unchanged": unchanged,
            }
        )
        return Exit.DONE
    print(f"{arguments.out}: {said}")
    if unchanged:
        print(f"lost in the rounding: {', '.join(unchanged)}")
    return Exit.DONE


def _as_directory(spec: str, hub: bool, stage: Path, console: Console) -> Path:
    """Return where the model's files are; write them to `stage` if they are not."""
    path = Path(spec).expanduser()
    if path.is_dir():
        return path
    model, tokenizer = load(spec, hub=hub, progress=console.note)
    try:
        model.save_pretrained(stage)
        tokenizer.save_pretrained(stage)
    except SafetensorError as error:
        raise OSError(str(error)) from error
    return stage
