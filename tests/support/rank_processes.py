# SPDX-License-Identifier: Apache-2.0
"""Processes that share work, forked from one that has imported torch, and mishaps.

Each run is a process or several without threads, of which one can be made to fail, to
end or to stop where it comes to an exchange.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch

from cintervene.activations import scoring
from cintervene.cli import entry
from cintervene.cli.commands import study
from cintervene.errors import ModelError
from cintervene.intervention.intervention import Intervention
from cintervene.prompts.evaluation_size import EvaluationSize
from cintervene.study import run_study
from cintervene.utils import ranks
from support.launches import free_port
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
LITTLE = [
    text
    for one in fields(EvaluationSize)
    for text in (f"--evaluation-{one.name.replace('_', '-')}", "3")
]
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
Act = Callable[[], None]


@dataclass(frozen=True)
class Mishap:
    """What one rank does where it comes to an exchange.

    Attributes
    ----------
    what : str or None
        A regular expression, the exchange's name; None for at once.
    act : callable
    rank : int
    time : int
        At which of the exchanges of that name, counted from 1.
    """

    what: str | None
    act: Act
    rank: int = 1
    time: int = 1

    def prepare(self) -> None:
        """Have this process do it."""
        if self.what is None:
            self.act()
            return
        what = self.what
        left = iter(range(self.time, 0, -1))

        def act(name: str) -> None:
            if re.fullmatch(what, name) and next(left, 0) == 1:
                self.act()

        at_exchanges(act)


@dataclass(frozen=True)
class Begun:
    """Processes that were started, and where what they write goes."""

    children: list[int]
    place: Path

    def end(self) -> dict[str, Any]:
        """How they end, and what they said."""
        return {
            "codes": _ends(self.children),
            "said": self._texts("err"),
            "printed": self._texts("out"),
        }

    def _texts(self, kind: str) -> list[str]:
        paths = [self.place / f"{n}.{kind}" for n in range(len(self.children))]
        return [path.read_text("utf-8") for path in paths]


class Runs:
    """Commands in so many processes.

    Parameters
    ----------
    root : Path
        An empty directory.
    """

    def __init__(self, root: Path) -> None:
        self.root, self._begun = root, 0
        self.model = save_tiny_model(root / "model")
        (root / "words.txt").write_text(WORDS, "utf-8")
        (root / "requests.txt").write_text(
            "".join(f"Do the bad thing {number}\n" for number in range(7)), "utf-8"
        )
        (root / "harmful.txt").write_text("\n".join(REQUESTED["harmful"]), "utf-8")

    def defend(self, out: str, *options: str) -> list[str]:
        """What defends from three words."""
        return [
            "defend", "--model", str(self.model), "--forbid",
            str(self.root / "words.txt"), "--beyond-limits", *options,
            "--out", str(self.root / out),
        ]  # fmt: skip

    def descend(self, method: str, out: str, *options: str) -> list[str]:
        """What descends, as in `DESCENTS`."""
        values = {**DESCENTS[method], "harmful": self.root / "harmful.txt"}
        given = [
            text
            for name, value in values.items()
            for text in (f"--{name.replace('_', '-')}", _text(value))
        ]
        return [
            "defend", "--model", str(self.model), "--method", method, *given,
            "--beyond-limits", *options, "--out", str(self.root / out),
        ]  # fmt: skip

    def evaluate(self, out: str, change: str) -> list[str]:
        """What measures a change that was made before."""
        return [
            "evaluate", "--model", str(self.model), "--intervention",
            str(self.root / change / "intervention.safetensors"), *LITTLE, "--limit",
            "2", "--tokens", "2",
            "--out", str(self.root / out),
        ]  # fmt: skip

    def study(
        self, out: str, attacks: str = "direct,templates",
        defence: str = "self-reminder",
    ) -> list[str]:  # fmt: skip
        """What attacks the model, and the model with a defence."""
        return [
            "evaluate", "--model", str(self.model), "--defence", defence,
            "--attacks", attacks, "--behaviours",
            str(self.root / "requests.txt"), "--safe", str(self.root / "requests.txt"),
            "--limit", "5", "--tokens", "3", "--depths", "0,1",
            "--out", str(self.root / out),
        ]  # fmt: skip

    def sweep(self, out: str) -> list[str]:
        """What tries two strengths of two sets of layers."""
        return [
            "sweep", "--model", str(self.model), "--forbid",
            str(self.root / "words.txt"), "--method", "pcr:hinge=off", "--layers",
            "0,1", "1", "--strength", "2,4", "--budget", "small", *LITTLE,
            "--out", str(self.root / out),
        ]  # fmt: skip

    def run(
        self, argv: list[str], world: int, mishap: Mishap | None = None
    ) -> dict[str, Any]:
        """Run a command."""
        return self.ended(argv, self.begin(argv, world, mishap))

    def begin(self, argv: list[str], world: int, mishap: Mishap | None = None) -> Begun:
        """Start a command, for `ended`."""

        def command(number: int) -> int:
            if mishap is not None and number == mishap.rank:
                mishap.prepare()
            return entry.main(argv)

        return self._start(command, world)

    def ended(self, argv: list[str], begun: Begun) -> dict[str, Any]:
        """How a command ends, and what it leaves."""
        found = begun.end()
        hidden = [one.name for one in self.root.iterdir() if one.name.startswith(".")]
        return found | {"files": _files(Path(argv[-1])), "hidden": hidden}

    def fork(self, work: Callable[[int], int], world: int) -> dict[str, Any]:
        """Call a function with its rank in so many processes; how they end."""
        return self._start(work, world).end()

    def _start(self, work: Callable[[int], int], world: int) -> Begun:
        self._begun += 1
        place = self.root / "said" / str(self._begun)
        place.mkdir(parents=True)
        port = free_port()
        children = [_child(work, number, world, port, place) for number in range(world)]
        return Begun(children, place)


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _child(
    work: Callable[[int], int], number: int, world: int, port: int, place: Path
) -> int:
    child = os.fork()
    if child:
        return child
    code = FAILED
    try:
        for stream, name in ((1, "out"), (2, "err")):
            flags = os.O_CREAT | os.O_WRONLY | os.O_TRUNC
            os.dup2(os.open(place / f"{number}.{name}", flags), stream)
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


def at_exchanges(act: Callable[[str], None]) -> None:
    """Have this process call a function where it comes to an exchange, by its name."""
    plain = ranks._Ranks.exchange

    def exchange(self: Any, name: str, make: Callable[[], Any]) -> list[Any]:
        def made() -> Any:
            act(name)
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
    """Fail with an error of the package's own, which says where ranks were to meet."""
    raise ModelError(
        f"model: got one of clay in {_meeting()}, expected one of iron; bake another"
    )


def _meeting() -> str:
    """Module and function of the package that came to the exchange, if one did."""
    frame: FrameType | None = sys._getframe()
    module = ""
    while not module.startswith("cintervene.") or module == ranks.__name__:
        frame = frame and frame.f_back
        if frame is None:
            return "none"
        module = frame.f_globals["__name__"]
    assert frame is not None
    # A comprehension is a function of its own until Python 3.12.
    name = frame.f_code.co_qualname.partition(".<locals>.<")[0]
    return f"{module}:{name}"


def break_() -> None:
    """Fail as only a mistake in the package does."""
    raise ZeroDivisionError("a mistake")


def show(kinds: Sequence[Callable[[Runs], Iterator[tuple[str, Any]]]]) -> None:
    """Print what came of all runs of little work, in a directory that is given."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        work_little(patch)
        patch.setattr("cintervene.prompts.chat.BATCH_TOKENS", BATCH_TOKENS)
        blocks = scoring._blocks
        patch.setattr(scoring, "_blocks", lambda hidden, _=0: blocks(hidden, ROWS))
        patch.setattr(study, "run_study", partial(run_study, batch=REQUESTS))
        runs = Runs(Path(sys.argv[1]))
        for kind in kinds:
            for name, result in kind(runs):
                print(json.dumps([name, result]), flush=True)
