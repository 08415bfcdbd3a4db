# SPDX-License-Identifier: Apache-2.0
"""Ranks that fail, end or stop in the middle of something; a program.

It is given a directory and prints what came of each run as JSON.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from torch import distributed

import cintervene as ci
from cintervene.attacks import RelaxedPGD
from cintervene.cli import entry
from cintervene.errors import ModelError
from cintervene.evaluate import EvaluationSize, measure, measure_capability
from cintervene.methods.common.layer_scores import kept_scores
from support.rank_processes import (
    DESCENTS,
    PATIENCE,
    SHORT,
    WORDS,
    Act,
    Mishap,
    Runs,
    at_exchanges,
    digest,
    fail,
    kill,
    show,
    stop,
)
from support.saved_models import save_tiny_model

Runner = Iterator[tuple[str, Any]]
# In the middle of a descent: where the second step looks, turns or has moved.
KILLED = {
    "tsr": Mishap("losses and derivatives", kill, time=3),
    "arr": Mishap("changes of layers", kill, rank=0, time=2),
    "gate": Mishap("losses", kill, time=3),
}
STOPPED = {
    "tsr": Mishap("gains of layers", stop, time=2),
    "arr": Mishap("losses and derivatives", stop, time=3, rank=0),
    "gate": Mishap("losses", stop, time=3),
}
# Of words, and of what is measured.
SIZE = ci.CalibrationSize(
    starting=1, later=1, contrast_words=2, text_words=2, texts=2, prompts=4,
    contrast_prompts=2, tune_prompts=2, tune_words=2, answer_tokens=4,
    sentence_tokens=4,
)  # fmt: skip
MEASURED = EvaluationSize(**{one.name: 2 for one in fields(EvaluationSize)})
CAPABILITY = "cintervene.evaluate.capability.measure"


def descents(runs: Runs) -> Runner:
    """Descents in which a rank ends between two steps, and again."""
    yield "alone", runs.fork(partial(_alone, runs.model), 1)
    for method, mishap in KILLED.items():
        yield f"killed {method}", runs.run(runs.descend(method, method), 3, mishap)
        found = runs.run(runs.descend(method, method), 2)
        yield f"{method} again", found | {"digest": digest(runs.root / method)}


def _alone(place: Path, _number: int) -> int:
    """Print what the changes are in one process."""
    model, tokenizer = ci.models.load(str(place))
    for method, options in DESCENTS.items():
        print(ci.defend(model, tokenizer, method=method, **options).digest)
    return 0


def waiting(runs: Runs) -> Runner:
    """Ranks that wait in vain, all at a time."""
    end: Act = partial(setattr, distributed, "new_group", lambda **_: kill())
    mishaps = {
        **{f"stopped {method}": STOPPED[method] for method in STOPPED},
        "ended early": Mishap(None, end),
        "lacks something": Mishap(None, _lack),
    }
    orders, patience = dict[str, list[str]](), ["--rank-timeout", str(SHORT)]
    for name in mishaps:
        method = name.partition(" ")[2]
        order = partial(runs.descend, method) if method in DESCENTS else runs.defend
        orders[name] = order(name, *patience)
    begun = {name: runs.begin(orders[name], 2, mishaps[name]) for name in mishaps}
    for name, argv in orders.items():
        yield name, runs.ended(argv, begun[name])


def _lack() -> None:
    """Lack a package from now on, for the imports to come."""

    def absent(name: str) -> None:
        raise ImportError(f"pip install {name}")

    setattr(entry, "import_module", absent)  # noqa: B010


def commands(runs: Runs) -> Runner:
    """Commands of which one rank fails."""
    study = runs.study("study")
    solving = runs.study("solving", defence="gate")
    attacking = runs.study("attacking", attacks="relaxed-pgd")
    failing = {
        "arguments": (runs.defend("arguments"), Mishap("the arguments", fail)),
        "columns": (runs.defend("columns"), Mishap("columns", fail)),
        "steps": (runs.descend("gate", "steps"), Mishap("losses", fail, time=3)),
        "measurement": (
            runs.evaluate("measurement", "gate"), Mishap("answers", fail, time=2)
        ),
        "journal": (study, Mishap("the journal", fail)),
        "search": (study, Mishap("direct request", fail, time=2)),
        "answers": (study, Mishap("answers to attacks", fail, time=2)),
        "remembered": (study, Mishap("begun.json", fail)),
        "solved": (solving, Mishap("gate.safetensors", fail)),
        "kept search": (attacking, Mishap("attack-.*", fail)),
        "place": (runs.sweep("sweep"), Mishap("the directory", fail)),
        "sweep": (runs.sweep("sweep"), Mishap("settings", fail)),
    }  # fmt: skip
    for name, (argv, mishap) in failing.items():
        yield f"{name} failed", runs.run(argv, 2, mishap)


def machines(runs: Runs) -> Runner:
    """A study that has solved a gate, in a directory that the other machine lacks."""
    place, elsewhere = runs.root / "solved", runs.root / "elsewhere"
    place.mkdir()
    elsewhere.mkdir()
    (place / "journal.jsonl").touch()
    change = runs.root / "gate" / "intervention.safetensors"
    shutil.copyfile(change, place / "gate.safetensors")
    argv = runs.study(os.path.relpath(place), "direct", "gate")
    yield "elsewhere", runs.run(argv, 2, Mishap(None, partial(os.chdir, elsewhere)))


def programs(runs: Runs) -> Runner:
    """A program that goes on after errors, at all places where ranks meet."""
    save_tiny_model(runs.root / "deep", num_hidden_layers=4)
    save_tiny_model(runs.root / "normed", "gemma2")
    yield "places", runs.fork(partial(_everywhere, runs.root), 2)


def _everywhere(root: Path, number: int) -> int:
    """Do all kinds of work, failing at each place once, and as if nothing had been."""
    distributed.init_process_group("gloo")
    failing = _Failing(number == 1)
    at_exchanges(failing)
    for work in _kinds(root):
        failing.again(None)
        with ci.joined(PATIENCE):
            expected = work()
        places = failing.places()
        for at in places:
            failing.again(at)
            with pytest.raises(ModelError, match="clay") as caught, ci.joined(PATIENCE):
                work()
            assert number == 1 or "On rank 1:" in caught.value.__notes__[0]
            print(caught.value)
        failing.again(None)
        with ci.joined(PATIENCE):
            assert work() == expected
    return 0


class _Failing:
    """Counts exchanges, and fails at one of them."""

    def __init__(self, fails: bool) -> None:
        self._fails = fails
        # Of the block's own, which no function of the package asks for.
        self._known = {"the end"}
        self.again(None)

    def again(self, at: int | None) -> None:
        """Begin to count, and fail at that one on the rank that fails."""
        self._at, self._names = at, list[str]()

    def __call__(self, name: str) -> None:
        self._names.append(name)
        if self._fails and len(self._names) - 1 == self._at:
            fail()

    def places(self) -> list[int]:
        """The second exchange of each name that is new, or the only one."""
        found: dict[str, list[int]] = {}
        for at, name in enumerate(self._names):
            found.setdefault(re.sub(r"\d+", "", name), []).append(at)
        new = [places for name, places in found.items() if name not in self._known]
        self._known |= found.keys()
        return [places[:2][-1] for places in new]


def _kinds(root: Path) -> Iterator[Callable[[], object]]:
    """Kinds of work, each of which gives what identifies its result."""
    model, tokenizer = ci.models.load(str(root / "model"))
    deep, normed = (ci.models.load(str(root / name))[0] for name in ("deep", "normed"))
    words = {"forbid": WORDS.split(), "calibration": SIZE}
    attack = {"attack": RelaxedPGD(model, tokenizer, steps=1, length=2)}

    def defended(model: Any, **options: Any) -> str:
        return ci.defend(model, tokenizer, **options).digest

    yield partial(defended, model, **words)
    yield partial(defended, model, **words, hinge="off")
    yield partial(defended, model, method="tsr", **DESCENTS["tsr"])
    yield partial(defended, model, method="arr", **DESCENTS["arr"], **attack)
    gate = {"method": "gate", **DESCENTS["gate"]}
    # Layers below relay where a request ends; and where a norm follows the MLP.
    yield partial(defended, deep, **{**gate, "relay": True, "layers": [3]})
    yield partial(defended, normed, **gate)
    yield partial(kept_scores, model, ["one"], {}, lambda: [1.0])
    change = ci.defend(model, tokenizer, **words)
    yield lambda: _timeless(measure(model, tokenizer, change, size=MEASURED))
    with pytest.MonkeyPatch.context() as patch:
        # As if lm_eval was there, and had nothing to ask.
        patch.setattr(f"{CAPABILITY}.check_installed", lambda: None)
        patch.setattr(f"{CAPABILITY}.run_tasks", lambda *_, **__: [])
        yield lambda: measure_capability(
            model, tokenizer, change, prompts=2, tokens=2, tasks=["one"]
        )


def _timeless(measurement: ci.evaluate.WordMeasurement) -> dict[str, Any]:
    return {**measurement.to_dict(), "seconds": None}


if __name__ == "__main__":
    show((descents, waiting, commands, machines, programs))
