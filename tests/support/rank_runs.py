# SPDX-License-Identifier: Apache-2.0
"""Runs in which processes share work; a program, for these are forked from it.

It is given a directory and prints what came of each run as JSON. torch is imported
once, and each run is a process or several without threads.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import distributed

import cintervene as ci
from cintervene.activations import scoring
from cintervene.cli import entry
from cintervene.cli.commands import study
from cintervene.errors import ModelError, RankError
from cintervene.intervention.intervention import Intervention
from cintervene.methods.defend import _check_same
from cintervene.prompts.evaluation_size import EvaluationSize
from cintervene.study import run_study
from cintervene.utils import ranks
from support.saved_models import save_tiny_model, work_little

# Seconds that a run may take, and that a stopped process is waited for: more than one
# of two comes after the other on a busy machine.
PATIENCE, SHORT = 900.0, 15.0
# Of a process in which an assertion fails.
FAILED = 99
WORDS = "bad\nworse\nworst\n"
# Small enough for several batches of little text.
BATCH_TOKENS, ROWS, REQUESTS = 256, 16, 2
UNMEASURED = ["--no-evaluate"]
LAYERS = ["--hinge", "off", *UNMEASURED]
# Descents, of so little that they have some batches and layers each.
REQUESTED = {
    "harmful": [f"Do the bad thing {number}" for number in range(5)],
    "answer_tokens": 2,
}  # fmt: skip
STEPS = {"steps": 3, "parts": 2, "answers": 6, "borderline": 6, "layers": [0, 1]}
DESCENTS: dict[str, dict[str, Any]] = {
    "tsr": {**REQUESTED, **STEPS},
    "arr": {**REQUESTED, **STEPS, "ball": "frobenius"},
    "gate": {
        **REQUESTED, "steps": 2, "examples_per_step": 8, "benign": 6, "layers": [1],
    },
}  # fmt: skip
LITTLE = [
    text
    for one in fields(EvaluationSize)
    for text in (f"--evaluation-{one.name.replace('_', '-')}", "3")
]
Act = Callable[[], None]


class Runs:
    """Commands in so many processes.

    Parameters
    ----------
    root : Path
        An empty directory.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.model = save_tiny_model(root / "model")
        (root / "words.txt").write_text(WORDS, "utf-8")
        (root / "requests.txt").write_text(
            "".join(f"Do the bad thing {number}\n" for number in range(7)), "utf-8"
        )

    def defend(self, out: str, *options: str) -> list[str]:
        """What defends from three words."""
        return [
            "defend", "--model", str(self.model), "--forbid",
            str(self.root / "words.txt"), "--beyond-limits", *options,
            "--out", str(self.root / out),
        ]  # fmt: skip

    def study(self, out: str) -> list[str]:
        """What attacks the model, and the model with a reminder."""
        return [
            "evaluate", "--model", str(self.model), "--defence", "self-reminder",
            "--attacks", "direct,templates", "--behaviours",
            str(self.root / "requests.txt"), "--safe", str(self.root / "requests.txt"),
            "--limit", "5", "--tokens", "3", "--depths", "0,1",
            "--out", str(self.root / out),
        ]  # fmt: skip

    def run(
        self, argv: list[str], world: int, at: str = "", rank: int = -1,
        act: Act | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Run a command; one rank does something where it comes to an exchange."""

        def command(number: int) -> int:
            if number == rank:
                _at_exchange(at, act)
            return entry.main(argv)

        found = self.fork(command, world)
        hidden = [one.name for one in self.root.iterdir() if one.name.startswith(".")]
        return found | {"files": _files(Path(argv[-1])), "hidden": hidden}

    def fork(self, work: Callable[[int], int], world: int) -> dict[str, Any]:
        """Call a function with its rank in so many processes; how they end."""
        port = _free_port()
        children = [self._child(work, number, world, port) for number in range(world)]
        return {
            "codes": _ends(children),
            "said": self._texts("err", world),
            "printed": self._texts("out", world),
        }

    def _texts(self, kind: str, world: int) -> list[str]:
        paths = [self.root / f"{number}.{kind}" for number in range(world)]
        return [path.read_text("utf-8") for path in paths]

    def _child(
        self, work: Callable[[int], int], number: int, world: int, port: int
    ) -> int:
        child = os.fork()
        if child:
            return child
        code = FAILED
        try:
            for stream, name in ((1, "out"), (2, "err")):
                place = self.root / f"{number}.{name}"
                flags = os.O_CREAT | os.O_WRONLY | os.O_TRUNC
                os.dup2(os.open(place, flags), stream)
            if world > 1:
                os.environ |= {
                    "RANK": str(number), "WORLD_SIZE": str(world),
                    "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
                }  # fmt: skip
            code = work(number)
            sys.stdout.flush()
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)


def _at_exchange(what: str, act: Act | None) -> None:
    """Do something where this process comes to an exchange of that name."""
    plain = ranks._Ranks.exchange

    def exchange(self: Any, name: str, make: Callable[[], Any]) -> list[Any]:
        def made() -> Any:
            if name == what and act is not None:
                act()
            return make()

        return plain(self, name, made)

    ranks._Ranks.exchange = exchange  # type: ignore[assignment]


def _ends(children: list[int]) -> list[int]:
    """Exit codes, negative for signals; what is stopped is killed after all others."""
    codes: dict[int, int] = {}
    end = time.monotonic() + PATIENCE
    while len(codes) < len(children) and time.monotonic() < end:
        for child in children:
            if child not in codes:
                found, status = os.waitpid(child, os.WNOHANG | os.WUNTRACED)
                if found and os.WIFSTOPPED(status):
                    codes[child] = -os.WSTOPSIG(status)
                elif found:
                    codes[child] = os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    for child in children:
        if codes.get(child, -signal.SIGSTOP) == -signal.SIGSTOP:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    return [codes.get(child, 1000) for child in children]


def _free_port() -> int:
    """A port that the system gives nobody who asks for any, as other tests do."""
    for port in range(20_000 + os.getpid() % 10_000, 32_000):
        with socket.socket() as one, suppress(OSError):
            one.bind(("127.0.0.1", port))
            return port
    raise OSError("no port is free")


def _files(place: Path) -> list[str] | None:
    return sorted(one.name for one in place.iterdir()) if place.is_dir() else None


def digest(place: Path) -> str:
    """Identifies the change that a command wrote."""
    return Intervention.load(place / "intervention.safetensors").digest


def kill() -> None:
    """End as if the machine had been switched off."""
    os.kill(os.getpid(), signal.SIGKILL)


def stop() -> None:
    """Go on no more, and say nothing."""
    os.kill(os.getpid(), signal.SIGSTOP)


def fail() -> None:
    """Fail with an error of the package's own."""
    raise ModelError("model: got one of clay, expected one of iron; bake another")


def break_() -> None:
    """Fail as only a mistake in the package does."""
    raise ZeroDivisionError("a mistake")


def cases(place: Path) -> list[dict[str, Any]]:
    """What a study recorded, without its seconds, in no order."""
    lines = (place / "journal.jsonl").read_text("utf-8").splitlines()
    found = [json.loads(line).get("case") for line in lines]
    kept = [
        {key: value for key, value in one.items() if not key.endswith("seconds")}
        for one in found
        if one is not None
    ]
    return sorted(kept, key=lambda one: json.dumps(one, sort_keys=True))


def measured(place: Path) -> dict[str, Any]:
    """What a report says, without its seconds."""
    report = json.loads((place / "report.json").read_text("utf-8"))
    return {key: _timeless(report[key]) for key in ("measurement", "verdicts")}


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(one) for key, one in value.items() if key != "seconds"}
    return value


def defences(runs: Runs) -> Iterator[tuple[str, Any]]:
    """Changes and measurements of one, two, three and four processes."""
    for world, name in enumerate(("one", "two", "three", "four"), start=1):
        # What is measured costs more than the change; two worlds show it.
        options = LITTLE if world <= 2 else UNMEASURED
        found = runs.run(runs.defend(name, *options), world)
        found["digest"] = digest(runs.root / name)
        if world <= 2:
            found["measured"] = measured(runs.root / name)
        yield name, found
    for world, name in ((1, "one"), (3, "three")):
        place = f"{name}, layers"
        found = runs.run(runs.defend(place, *LAYERS), world)
        yield place, found | {"digest": digest(runs.root / place)}


def descents(runs: Runs) -> Iterator[tuple[str, Any]]:
    """Changes by descent in one to four processes, and in two of which one fails."""
    model, tokenizer = ci.models.load(str(runs.model))

    def work(number: int) -> int:
        with _process_group():
            for name, options in DESCENTS.items():
                counts = _layer_calls(model)
                change = ci.defend(model, tokenizer, method=name, **options)
                steps = json.dumps(change.metrics["steps"])
                print(json.dumps([name, change.digest, counts["calls"], steps]))
        return 0

    for world in range(1, 5):
        found = runs.fork(work, world)
        lines = [text.splitlines() for text in found["printed"]]
        found["descents"] = [[json.loads(one) for one in own] for own in lines]
        yield f"descents of {world}", found

    def failing(number: int) -> int:
        if number == 1:
            _at_exchange("losses and derivatives", fail)
        return work(number)

    yield "failed descent", runs.fork(failing, 2)
    requests = [str(runs.root / "requests.txt"), "--steps", "2", "--benign", "6"]
    argv = [
        "defend", "--model", str(runs.model), "--method", "gate", "--harmful",
        *requests, "--answer-tokens", "2", "--layers", "1", "--beyond-limits",
        "--out", str(runs.root / "gate"),
    ]  # fmt: skip
    yield "command of a descent", runs.run(argv, 2)


@contextmanager
def _process_group() -> Iterator[None]:
    """Share work with the others that were started, if there are any."""
    if "WORLD_SIZE" in os.environ:
        distributed.init_process_group("gloo")
    with ci.joined(PATIENCE):
        yield


def _layer_calls(model: Any) -> Counter[str]:
    """Counts the sequences that pass a layer, from now on."""
    counts: Counter[str] = Counter()

    def count(_module: Any, args: Any, kwargs: Any) -> None:
        hidden = args[0] if args else kwargs["hidden_states"]
        counts["calls"] += len(hidden)

    for layer in model.model.layers:
        layer.register_forward_pre_hook(count, with_kwargs=True)
    return counts


def studies(runs: Runs) -> Iterator[tuple[str, Any]]:
    """Studies in one process, in three, and in two that were killed and went on."""

    def study(name: str, world: int, *what: Any) -> tuple[str, Any]:
        found = runs.run(runs.study(place), world, *what)
        return name, found | {"cases": cases(runs.root / place)}

    for place, world in (("study", 1), ("study of three", 3)):
        yield study(place, world)
    place, times = "interrupted", iter(range(3))

    def third() -> None:
        if next(times) == 2:
            kill()

    yield study("killed study", 2, "answers to attacks", 1, third)
    yield study("resumed study", 3)


def sweeps(runs: Runs) -> Iterator[tuple[str, Any]]:
    """Sweeps of one process and of three, in which a layer has another owner."""
    for name, world in (("sweep", 1), ("sweep of three", 3)):
        argv = [
            "sweep", "--model", str(runs.model), "--forbid",
            str(runs.root / "words.txt"), "--method", "pcr:hinge=off", "--layers",
            "0,1", "1", "--strength", "2,4", "--budget", "small", *LITTLE,
            "--out", str(runs.root / name),
        ]  # fmt: skip
        found = runs.run(argv, world)
        table = json.loads((runs.root / name / "table.json").read_text("utf-8"))
        yield name, found | {"rows": [{**r, "seconds": 0} for r in table["rows"]]}


def failures(runs: Runs) -> Iterator[tuple[str, Any]]:
    """Errors, killed and stopped processes at several phases, and runs afterwards."""
    acts: dict[str, tuple[str, int, Act]] = {
        "failed": ("answers", 1, fail),
        "broken": ("detectors", 1, break_),
        "killed early": ("answers", 1, kill),
        "killed first": ("detectors", 0, kill),
        "killed late": ("the end", 1, kill),
    }
    for name, (at, rank, act) in acts.items():
        argv = runs.defend(name, *UNMEASURED)
        yield name, runs.run(argv, 2, at, rank, act)
    argv = runs.defend("stopped", *UNMEASURED, "--rank-timeout", str(SHORT))
    yield "stopped", runs.run(argv, 2, "likelihoods of tokens", 1, stop)
    argv = runs.defend("killed first", *UNMEASURED)
    again = runs.run(argv, 2)
    yield "again", again | {"digest": digest(runs.root / "killed first")}
    yield "occupied", runs.run(argv, 2)
    yield "other command", runs.run(["explain", "--model", str(runs.model)], 2)


def one_fails(number: int) -> None:
    """Fail outside an exchange, while the other rank is in one."""
    if number == 1:
        fail()
    ranks.exchange("here", lambda: None)


def library(number: int) -> int:
    """What a program sees that shares work by itself."""
    distributed.init_process_group("gloo")
    # Nothing is shared unasked: the other rank is not waited for.
    assert number or ranks.deal("squares", range(5), abs) == [0, 1, 2, 3, 4]
    done: list[int] = []

    def work(item: int) -> tuple[int, int, torch.Tensor]:
        # What is a rank's own piece it does by itself.
        assert ranks.world() == 1
        return item, number, torch.full((2,), float(item), dtype=torch.bfloat16)

    with ci.joined(PATIENCE):
        assert (ranks.rank(), ranks.world()) == (number, 2)
        found = ranks.deal("pieces", range(5), work, done.append)
        assert [item for item, _, _ in found] == [0, 1, 2, 3, 4]
        assert [rank for _, rank, _ in found] == [0, 1, 0, 1, 0]
        assert [float(rows.sum()) for _, _, rows in found] == [0, 2, 4, 6, 8]
        assert sorted(done) == [0, 1, 2, 3, 4]
        assert list(ranks.deal_in_rounds("few", [7], lambda x: x + number)) == [7]
        assert ranks.of_one("odd", lambda: number, owner=3) == 1
        with pytest.raises(ModelError, match="clay") as caught:
            ranks.of_one("failing", fail, owner=1)
        assert number == 1 or "On rank 1:" in caught.value.__notes__[0]
        # An error that is caught everywhere leaves the ranks together.
        assert ranks.exchange("rank", lambda: number) == [0, 1]
    # For ever is as long as torch can count.
    with ci.joined(1e308):
        assert ranks.exchange("patient", lambda: number) == [0, 1]
    with pytest.raises(RankError, match="different places"), ci.joined():
        ranks.exchange("here" if number else "there", lambda: None)
    with pytest.raises(ModelError, match="clay"), ci.joined():
        one_fails(number)
    with pytest.raises(RankError, match="different changes"), ci.joined():
        _check_same(SimpleNamespace(digest=str(number)))
    return 0


def programs(runs: Runs) -> Iterator[tuple[str, Any]]:
    """A program, not the command."""
    yield "library", runs.fork(library, 2)


def main() -> None:
    """Print what came of all runs."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        work_little(patch)
        patch.setattr("cintervene.prompts.chat.BATCH_TOKENS", BATCH_TOKENS)
        blocks = scoring._blocks
        patch.setattr(scoring, "_blocks", lambda hidden, _=0: blocks(hidden, ROWS))
        patch.setattr(study, "run_study", partial(run_study, batch=REQUESTS))
        runs = Runs(Path(sys.argv[1]))
        for kind in (defences, descents, studies, sweeps, failures, programs):
            for name, result in kind(runs):
                print(json.dumps([name, result]), flush=True)


if __name__ == "__main__":
    main()
