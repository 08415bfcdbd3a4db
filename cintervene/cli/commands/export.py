# SPDX-License-Identifier: Apache-2.0
"""``cintervene export``, ``apply``, ``revert``: interventions as they are deployed."""

from __future__ import annotations

import shutil
from argparse import Namespace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from cintervene.cli.common.console import Console, print_json, say
from cintervene.cli.common.failures import Exit
from cintervene.cli.common.inputs import load_as_asked
from cintervene.cli.common.reports import quoted
from cintervene.errors import ArgumentError
from cintervene.export import Artefact, gguf, lora
from cintervene.export.cards.card import Report
from cintervene.export.checkpoint.write import revert_directory, write_checkpoint
from cintervene.intervention.acceptance import check_limits
from cintervene.intervention.intervention import Intervention
from cintervene.models.weights import dtype_name
from cintervene.utils.homes import expanded
from cintervene.utils.staging import StagedDirectory

# Where models that are not directories of safetensors are written to for a while.
CONVERTED = ".converted"


def run(arguments: Namespace, console: Console) -> Exit:
    """Write an adapter, a changed model, or the one that was before the change."""
    intervention = Intervention.load(arguments.intervention)
    if arguments.command == "revert":
        return _revert(arguments, intervention, console)
    if arguments.command == "export" and arguments.to == "checkpoint":
        _check_no_adapter(arguments)
    # Here, because writing a model, or measuring one, takes minutes.
    check_limits(intervention, arguments.beyond_limits)
    if arguments.command == "export" and arguments.to != "checkpoint":
        return _export(arguments, intervention, console)
    return _apply(arguments, intervention, console)


def _check_no_adapter(arguments: Namespace) -> None:
    """Refuse what is about adapters only.

    Raises
    ------
    ArgumentError
        Names the flag.
    """
    if arguments.max_rank is not None:
        raise ArgumentError(
            "--max-rank: is for adapters (--to lora, --to gguf); weights hold a change "
            "of any rank. Leave it out"
        )


def _export(arguments: Namespace, intervention: Intervention, console: Console) -> Exit:
    """Write an adapter."""
    report = quoted(arguments, intervention, console)
    artefact = _adapter(arguments, intervention, report)
    if arguments.json:
        print_json(
            {
                "command": "export",
                "to": arguments.to,
                "out": str(artefact.path),
                "files": sorted(path.name for path in artefact.path.iterdir()),
                "rank": artefact.rank,
                "errors": artefact.errors,
            }
        )
        return Exit.DONE
    worst = max(artefact.errors.values())
    whole = max(one.rank for one in intervention.updates.values())
    cut = f" of {whole}" if whole > artefact.rank else ""
    say(
        f"{artefact.path}: rank {artefact.rank}{cut}; read again, the change is off by "
        f"{worst:.1e} of its norm at most"
    )
    return Exit.DONE


def _adapter(
    arguments: Namespace, intervention: Intervention, report: Report | None
) -> Artefact:
    base = arguments.base
    options: dict[str, Any] = {
        "dtype": arguments.dtype,
        "max_rank": arguments.max_rank,
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


def _apply(arguments: Namespace, intervention: Intervention, console: Console) -> Exit:
    """Write a copy of a model with the change in its weights."""
    with StagedDirectory(arguments.out) as stage:
        source = _as_directory(arguments, intervention, stage.path, console)
        console.note(f"writing {arguments.out}")
        report = quoted(arguments, intervention, console, source)
        artefact = write_checkpoint(
            intervention,
            source,
            stage.path,
            report,
            beyond_limits=arguments.beyond_limits,
            progress=console,
        )
        _commit(stage, source)
    _say(arguments, artefact.changed, artefact.unchanged, "changed")
    return Exit.DONE


def _revert(arguments: Namespace, intervention: Intervention, console: Console) -> Exit:
    """Write a copy of a changed model with the weights it had before."""
    with StagedDirectory(arguments.out) as stage:
        source = _as_directory(arguments, intervention, stage.path, console)
        console.note(f"writing {arguments.out}")
        revert_directory(intervention, source, stage.path, progress=console)
        _commit(stage, source)
    _say(arguments, list(intervention.edits), [], "are what they were, bit by bit")
    return Exit.DONE


def _as_directory(
    arguments: Namespace, intervention: Intervention, stage: Path, console: Console
) -> Path:
    """Return where the model's files are; write them below `stage` if need be."""
    path = expanded(arguments.model)
    if path.is_dir():
        return path
    if path.suffix.lower() == ".gguf" and arguments.model_dtype == "auto":
        # Unpacked, it has no type of its own but that which it was changed in.
        first = next(iter(intervention.edits.values()))
        arguments.model_dtype = dtype_name(first.dtype)
    model, tokenizer = load_as_asked(arguments, arguments.model, console)
    directory = stage / CONVERTED
    try:
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)
    except SafetensorError as error:
        raise OSError(str(error)) from error
    return directory


def _commit(stage: StagedDirectory, source: Path) -> None:
    """Put the files in place, but not the model they were made from."""
    if source.parent == stage.path:
        shutil.rmtree(source)
    stage.commit()


def _say(
    arguments: Namespace, changed: list[str], unchanged: list[str], what: str
) -> None:
    if arguments.json:
        result = {"command": arguments.command, "out": str(arguments.out)}
        print_json({**result, "weights": changed, "unchanged": unchanged})
        return
    say(f"{arguments.out}: {len(changed)} weights {what}")
    if unchanged:
        say(f"lost in the rounding: {', '.join(unchanged)}")
