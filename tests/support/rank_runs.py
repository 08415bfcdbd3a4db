# SPDX-License-Identifier: Apache-2.0
"""Runs in which processes share work; a program, for these are forked from it.

It is given a directory and prints what came of each run as JSON.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import distributed

import cintervene as ci
from cintervene.errors import ModelError, RankError
from cintervene.methods.common import layer_scores
from cintervene.methods.common.layer_scores import kept_scores
from cintervene.methods.defend import _check_same
from cintervene.utils import ranks
from support.rank_processes import (
    DESCENTS,
    LAYERS,
    LITTLE,
    PATIENCE,
    SHORT,
    UNMEASURED,
    Mishap,
    Runs,
    break_,
    digest,
    fail,
    kill,
    show,
    stop,
)
from support.tiny_models import make_tiny_model


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
            Mishap("losses and derivatives", fail).prepare()
        return work(number)

    yield "failed descent", runs.fork(failing, 2)
    argv = runs.descend("gate", "gate")
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
    """Studies in one process, in three, and one that was killed twice and went on."""

    def study(name: str, world: int, mishap: Mishap | None = None) -> tuple[str, Any]:
        found = runs.run(runs.study(place), world, mishap)
        return name, found | {"cases": cases(runs.root / place)}

    for place, world in (("study", 1), ("study of three", 3)):
        yield study(place, world)
    place = "interrupted"
    yield study("killed study", 2, Mishap("answers to attacks", kill, time=3))
    # The first rank keeps the study, and is killed when all cases are answered.
    yield study("killed again", 3, Mishap("depth-none.json", kill, rank=0))
    yield study("resumed study", 1)


def sweeps(runs: Runs) -> Iterator[tuple[str, Any]]:
    """Sweeps of one process and of three, which go on where two were killed."""
    half = Mishap("the digest", kill, rank=0, time=2)
    yield "killed sweep", runs.run(runs.sweep("sweep of three"), 2, half)
    for name, world in (("sweep", 1), ("sweep of three", 3)):
        found = runs.run(runs.sweep(name), world)
        table = json.loads((runs.root / name / "table.json").read_text("utf-8"))
        yield name, found | {"rows": [{**r, "seconds": 0} for r in table["rows"]]}


def failures(runs: Runs) -> Iterator[tuple[str, Any]]:
    """Errors, killed and stopped processes at several phases, and runs afterwards."""
    mishaps = {
        "failed": Mishap("answers", fail),
        "broken": Mishap("detectors", break_),
        "killed early": Mishap("answers", kill),
        "killed first": Mishap("detectors", kill, rank=0),
        "killed late": Mishap("the end", kill),
    }
    for name, mishap in mishaps.items():
        yield name, runs.run(runs.defend(name, *UNMEASURED), 2, mishap)
    argv = runs.defend("stopped", *UNMEASURED, "--rank-timeout", str(SHORT))
    yield "stopped", runs.run(argv, 2, Mishap("likelihoods of tokens", stop))
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


def own_caches(number: int) -> None:
    """Scores that one machine has kept and the other has not."""
    model = make_tiny_model("llama")

    def scores(value: float) -> list[float]:
        def measured() -> list[float]:
            return ranks.of_one("scores", lambda: [value])

        return kept_scores(model, ["a layer"], {}, measured)

    with (
        TemporaryDirectory() as place,
        patch.object(layer_scores, "cache_directory", lambda: Path(place)),
    ):
        if number == 0:
            assert scores(1.0) == [1.0]
        with ci.joined(PATIENCE):
            assert scores(2.0) == [1.0]


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
    own_caches(number)
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


if __name__ == "__main__":
    show((defences, descents, studies, sweeps, failures, programs))
