# SPDX-License-Identifier: Apache-2.0
"""Make and measure each setting of a sweep that is not there yet."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from cintervene.data import Split
from cintervene.errors import ArgumentError, ModelError
from cintervene.evaluate.words.measure import measure
from cintervene.evaluate.words.measurement import WordMeasurement
from cintervene.intervention.adapter import applicable_form
from cintervene.intervention.hub import FILE
from cintervene.methods.config import MethodConfig
from cintervene.methods.defend import check_shared, defend
from cintervene.models.quantised import check_writable
from cintervene.models.weights import add_to_hash
from cintervene.models.wrapped import name_of, unwrapped
from cintervene.prompts.evaluation_size import EvaluationSize
from cintervene.study.journal import Journal, check_resumable
from cintervene.study.sweeps.files import write_sweep
from cintervene.study.sweeps.result import Sweep
from cintervene.study.sweeps.rows import SweepRow, row_of
from cintervene.study.sweeps.settings import (
    AXES,
    Layers,
    Setting,
    Strength,
    settings_of,
)
from cintervene.utils.json_text import parse_json
from cintervene.utils.kept import keeping
from cintervene.utils.parameters import parameters
from cintervene.utils.progress import Progress, silent
from cintervene.utils.ranges import takes_file
from cintervene.utils.ranks import of_one, rank
from cintervene.utils.staging import StagedDirectory, try_writing

__all__ = ["check_out", "sweep"]

# Of the journal, and what it is about.
NAME, HOLDS = "sweep.jsonl", "settings"
# Of one setting: its row, and all that was measured.
RECORD = "setting.json"
Measured = dict[tuple[str, str], WordMeasurement]


def sweep(
    model: nn.Module,
    tokenizer: Any,
    out: Path | str,
    *,
    forbid: Sequence[str] | Mapping[str, Sequence[str]],
    method: Sequence[str] = ("pcr",),
    layers: Sequence[Layers] = ("auto",),
    strength: Sequence[Strength] = ("auto",),
    budget: str = "default",
    split: Split = "tune",
    size: EvaluationSize | None = None,
    progress: Progress = silent,
    **parameters: Any,
) -> Sweep:
    """Make and measure a change for each words, method, layers and strength.

    What settings have in common is worked out once: the model's own answers and
    sentences, activations, norms of layers, and the base as it was measured. A setting
    is on the disk as soon as it was measured; a call after one that was interrupted,
    or with more values, goes on from there. The model is left as it was.

    Parameters
    ----------
    model : nn.Module
        A causal language model of transformers.
    tokenizer
        Its tokenizer.
    out : path
        Directory for a directory of each setting, a table, a page and a picture of the
        front. New, empty, or that of a sweep with the same model, words and options.
    forbid : sequence of str, or mapping of str to sequence of str
        Words, or several lists of them by name.
    method : sequence of str, default ("pcr",)
        Methods that forbid words, each perhaps with parameters of its own behind
        colons: ``["pcr", "pcr:hinge=off:max_rank=64"]``.
    layers : sequence of ("auto" or sequence of int), default ("auto",)
        Layers that are changed together: ``[[27, 28], [29]]``.
    strength : sequence of ("auto" or float), default ("auto",)
    budget : {"small", "default", "large"}
        How much is calibrated with and measured on.
    split : {"tune", "held_out"}, default "tune"
        What is measured on. Where one setting is chosen by the table, its report on
        held-out data has to be about that one alone, so as not to be chosen by them.
    size : EvaluationSize, optional
        How much to measure on; default: as `budget` says.
    progress : callable, optional
        Called as ``progress(phase, done, total)``.
    **parameters
        Further parameters of all methods, such as ``max_kl=0.02``.

    Returns
    -------
    Sweep
        `rows`, one for each setting, and `front`; ``print`` shows the table.

    Raises
    ------
    ArgumentError
        An argument is empty or out of range, or the directory holds other files, or
        settings of another model, with other words or with other options.
    ModelError
        The model has no layers that can be changed.

    Examples
    --------
    >>> found = ci.sweep(
    ...     model, tokenizer, "sweep", forbid=["bomb"], layers=[[27, 28], [29]],
    ...     strength=[2, 4, 8],
    ... )
    >>> print(found)
    >>> found.front[0].load("sweep").apply(model)
    """
    lists = forbid if isinstance(forbid, Mapping) else {"words": forbid}
    settings = settings_of(lists, method, layers, strength, budget, parameters)
    for one in settings:
        check_shared(one.config)
    if split not in ("tune", "held_out"):
        raise ArgumentError(f"split: got {split!r}; expected 'tune' or 'held_out'")
    model, size = unwrapped(model), size or EvaluationSize.named(budget)
    directory = Path(out)
    with Journal(directory, NAME, HOLDS) as journal:
        journal.agree(
            {
                "model": _identity(model),
                "split": split,
                "evaluation": size.to_dict(),
                **{f"words {name}": _texts(words) for name, words in lists.items()},
                **{f"method {one.method}": _options(one.config) for one in settings},
            }
        )
        known = of_one("settings", partial(_known, directory, settings))
        with keeping():
            make = partial(_made, model, tokenizer, directory, split, size, measured={})
            rows = [
                known.get(one.name) or make(one, _numbered(progress, place, settings))
                for place, one in enumerate(settings, start=1)
            ]
        found = Sweep(directory, split, rows)
        if rank() == 0:
            write_sweep(found, name_of(model))
    return found


def check_out(out: Path) -> None:
    """Refuse a directory in which a sweep could be neither begun nor gone on with.

    What can be told without the model: whether its settings are the same shows later.

    Raises
    ------
    ArgumentError
        It is not a directory, is below a file, or holds other files.
    OSError
        Nothing can be written there.
    """

    def check() -> None:
        check_resumable(out, NAME, HOLDS)
        try_writing(out)

    # What one rank tries would be other files to another.
    of_one("the directory", check)


def _made(
    model: nn.Module,
    tokenizer: Any,
    directory: Path,
    split: Split,
    size: EvaluationSize,
    setting: Setting,
    progress: Progress,
    measured: Measured,
) -> SweepRow:
    """Make, measure and store one setting."""
    start = time.perf_counter()
    change = defend(model, tokenizer, setting.config, progress=progress)
    key = (setting.words, change.digest)
    # Settings that come to the same change do the same.
    if key not in measured:
        form = applicable_form(change, model)
        measured[key] = measure(
            model, tokenizer, form, split=split, size=size, progress=progress
        )
    row = row_of(setting, change, measured[key], time.perf_counter() - start)
    if rank() == 0:
        record = {"row": row.to_dict(), "measurement": measured[key].to_dict()}
        text = json.dumps(record, ensure_ascii=False, indent=1) + "\n"
        with StagedDirectory(directory / setting.name) as stage:
            # What it does is what the sweep is about; nothing is shipped.
            change.save(stage.path / FILE, beyond_limits=True)
            # Answers can contain lone surrogates, which UTF-8 cannot encode.
            (stage.path / RECORD).write_bytes(text.encode("utf-8", "replace"))
            stage.commit()
    return row


def _known(directory: Path, settings: Sequence[Setting]) -> dict[str, SweepRow]:
    """The rows that an earlier call has stored, by their names.

    Raises
    ------
    ArgumentError
        A file was damaged.
    """
    rows = {}
    for one in settings:
        path = directory / one.name / RECORD
        if not path.exists():
            continue
        try:
            record = parse_json(path.read_text("utf-8"))
            rows[one.name] = SweepRow.from_dict(record["row"])
        except (ValueError, KeyError, TypeError) as error:
            raise ArgumentError(
                f"out: {path} is not the record of a setting; remove {path.parent}, "
                "and that setting is made again"
            ) from error
    return rows


def _identity(model: nn.Module) -> str:
    """What a model is called, and a hash of its weights where they are here.

    Of a path only the last part counts, for a directory can be moved.
    """
    name = Path(name_of(model)).name
    try:
        check_writable(model)
    except ModelError:
        return name
    state = hashlib.sha256()
    add_to_hash(state, model)
    return f"{name}, sha256 {state.hexdigest()[:16]}"


def _texts(texts: Sequence[str]) -> str:
    """How many texts there are, and a hash of them in place of what they say."""
    digest = hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()
    return f"{len(texts)}, sha256 {digest[:16]}"


def _options(config: MethodConfig) -> dict[str, Any]:
    """The parameters that are the same in all settings of a method."""
    values = config.to_dict()
    private = [
        one.name for one in parameters(config) if one.private or takes_file(one.range)
    ]
    hidden = {name: _texts(values[name] or ()) for name in private}
    return {n: v for n, v in {**values, **hidden}.items() if n not in AXES}


def _numbered(progress: Progress, place: int, settings: Sequence[Setting]) -> Progress:
    """Say before each phase which setting it is of."""

    def report(phase: str, done: int, total: int) -> None:
        progress(f"{place}/{len(settings)} {phase}", done, total)

    return report
