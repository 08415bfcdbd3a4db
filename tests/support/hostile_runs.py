# SPDX-License-Identifier: Apache-2.0
"""Runs commands on hostile files in forked processes; a script, prints what happened.

usage: hostile_runs.py NTH KIND ..., every nth case of these kinds
"""

from __future__ import annotations

import gc
import json
import os
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import torch

from cintervene.cli import main
from cintervene.evaluate import write_report
from cintervene.intervention.intervention import Intervention
from cintervene.models import load
from support.gguf_files import base_of
from support.hostile_files import (
    directories,
    ggufs,
    interventions,
    reports,
    texts,
)
from support.interventions import random_intervention
from support.saved_models import save_tiny_model

# Of the processor, and of the clock for those that wait; other programs run as well.
SECONDS, PATIENCE = 10, 600
BYTES = 2 << 30
Command = list[object]


class Place:
    """A directory with a whole model, an intervention and a GGUF file."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.model = save_tiny_model(root / "model")
        self.change, self.gguf = root / "change.safetensors", root / "base.gguf"
        loaded, _ = load(str(self.model))
        random_intervention(loaded, layers=(0, 1)).save(self.change)
        base_of(self.gguf, loaded, "llama")
        self.out, self.file = root / "out", root / "hostile"

    def runs(self, kind: str) -> Iterator[tuple[str, Callable[[], None], Command]]:
        """Name, what makes the hostile file, and the command that reads it."""
        self.file = self.root / "hostile"
        yield from getattr(self, kind)()

    def interventions(self) -> Iterator[tuple[str, Callable[[], None], Command]]:
        apply = ["apply", "--model", self.model, "--intervention", self.file]
        lora = ["export", "--to", "lora", "--intervention", self.file]
        revert = ["revert", "--model", self.model, "--intervention", self.file]
        for at, (name, content) in enumerate(interventions(self.change.read_bytes())):
            command = (lora, apply, revert)[at % 3]
            yield name, self.writing(content), [*command, "--out", self.out]

    def ggufs(self) -> Iterator[tuple[str, Callable[[], None], Command]]:
        self.file = self.root / "hostile.gguf"
        export = ["export", "--to", "gguf", "--intervention", self.change]
        for at, (name, content) in enumerate(ggufs(self.gguf.read_bytes())):
            if at % 3:
                command = [*export, "--base", self.file, "--out", self.out]
            else:
                command = ["explain", "--model", self.file]
            yield name, self.writing(content), command

    def directories(self) -> Iterator[tuple[str, Callable[[], None], Command]]:
        apply = ["apply", "--intervention", self.change, "--out", self.out]
        for at, (name, change) in enumerate(directories(self.model)):
            command = apply if at % 2 else ["explain"]
            if any(word in name for word in ("link", "circle", "outside", "holes")):
                command = apply
            elif "tokenizer" in name or "config" in name:
                command = ["explain"]

            def make(change: Callable[[Path], None] = change) -> None:
                shutil.copytree(self.model, self.file)
                change(self.file)

            yield name, make, [*command, "--model", self.file]

    def texts(self) -> Iterator[tuple[str, Callable[[], None], Command]]:
        model = ["--model", self.model]
        given = {
            "config": ["defend", "--dry-run", *model, "--config", self.file],
            "words": ["defend", "--dry-run", *model, "--forbid", self.file],
            "report": ["export", "--to", "lora", "--intervention", self.change,
                       "--report", self.file],
            "behaviours": ["evaluate", *model, "--behaviours", self.file,
                           "--defence", "none"],
            "peers": ["evaluate", *model, "--defence", "none", "--peers", self.file],
            "journal": ["evaluate", *model, "--defence", "none"],
        }  # fmt: skip
        digest = Intervention.load(self.change).digest
        about = [("report", name, content) for name, content in reports(digest)]
        for kind, name, content in [*texts(), *about]:
            if kind == "journal":
                made = self.writing(content + b"\n", self.out / "journal.jsonl")
            else:
                made = self.writing(content)
            yield f"{kind}: {name}", made, [*given[kind], "--out", self.out]

    def writing(self, content: bytes, path: Path | None = None) -> Callable[[], None]:
        def make() -> None:
            place = path or self.file
            place.parent.mkdir(exist_ok=True)
            place.write_bytes(content)

        return make

    def clean(self) -> None:
        for path in (self.file, self.out):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def judged(place: Path, command: Command) -> dict[str, object]:
    """Run a command in a process of its own, and say what is wrong with it."""
    begun = time.monotonic()
    said = place / "said"
    if not (child := os.fork()):
        descriptor = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
        code = 70
        try:
            code = _ended(command)
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    while True:
        found, status, used = os.wait4(child, os.WNOHANG)
        if found:
            break
        if time.monotonic() - begun > PATIENCE:
            os.kill(child, 9)
        time.sleep(0.002)
    text = said.read_bytes().decode("utf-8", "surrogateescape")
    lines = text.split("\n")[:-1] or [text]
    told = [line for line in lines if line.startswith("cintervene: ")]
    code = os.waitstatus_to_exitcode(status)
    wrong = {
        "code": code if code not in (2, 3) else None,
        "lines": told if len(told) != 1 or lines[-1] != told[0] else None,
        "unprintable": [ln for ln in lines if not ln.isprintable()] or None,
        "seconds": used.ru_utime + used.ru_stime > SECONDS or None,
        "memory": used.ru_maxrss * 1024 > BYTES or None,
    }
    return {k: v for k, v in wrong.items() if v is not None} | {"said": text[-1500:]}


def _ended(command: Command) -> int:
    words = [str(word) for word in command]
    code = main(words)
    if code == 0 and "--intervention" in words:
        # What is taken for whole is drawn and described as well.
        path = Path(words[words.index("--intervention") + 1])
        if path.name == "hostile":
            with tempfile.TemporaryDirectory() as directory:
                write_report(directory, Intervention.load(path))
    return code


def script() -> None:
    nth, kinds = int(sys.argv[1]), sys.argv[2:]
    gc.freeze()
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryDirectory() as root:
        place = Place(Path(root))
        main(["explain", "--model", str(place.model)])
        sys.stdout.flush()
        for kind in kinds:
            for name, make, command in islice(place.runs(kind), 0, None, nth):
                make()
                found = {"kind": kind, "name": name, **judged(place.root, command)}
                print("CASE", json.dumps(found), flush=True)
                place.clean()


if __name__ == "__main__":
    script()
