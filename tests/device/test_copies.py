# SPDX-License-Identifier: Apache-2.0
"""What goes from the devices to the host and back, phase by phase.

A tensor's shape tells what it is. `PLACES` are the functions that may ask for what is
as large as a weight matrix, or has a number for each token of the vocabulary, and
`MOST` is how much may pass all in all: docs/scaling.md is about both. Whoever adds a
copy has to add it here, and whoever spares one may take it out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from support import fakegpu
from support.little_defences import little_defence
from support.placed_models import HIDDEN, INNER, VOCABULARY, on_one, save

import cintervene as ci
from cintervene.utils.clock import Clock

# Everything before and after the phases: trials and results are made of weights.
WEIGHTS = {
    ("down", "weight", "models/weights:raw_bytes"),
    ("down", "weight", "models/weights:add_update"),
    ("up", "weight", "models/weights:add_update"),
}
SET_NLL = "methods/common/objectives:_SetNLL.forward"
LOSSES = {("down", "logits", SET_NLL)}
LEARNING = {*LOSSES, ("up", "logits", SET_NLL)}
DESCENT = {
    "": WEIGHTS,
    "capture": {
        *LEARNING,
        (
            "down",
            "logits",
            "methods/common/gradient_metric:GradientMetric._derivatives",
        ),
        ("down", "weight", "models/weights:as_floats"),
    },
    "solve": {
        *LEARNING,
        ("down", "weight", "methods/tsr/problem:SafeRegion.evaluate"),
        ("up", "weight", "methods/tsr/problem:SafeRegion.evaluate"),
    },
    "tune": {*LOSSES, ("up", "weight", "methods/tsr/fit:_Tuning._measure")},
}
PLACES: dict[str, dict[str, set[tuple[str, str, str]]]] = {
    "pcr": {
        "": WEIGHTS,
        "capture": {("down", "logits", "activations/scoring:token_nll")},
        "solve": {
            *(WEIGHTS - {("down", "weight", "models/weights:raw_bytes")}),
            ("down", "weight", "models/weights:as_floats"),
            ("up", "weight", "activations/output_change:OutputChange.__init__"),
        },
        "tune": {*WEIGHTS, ("down", "logits", "activations/scoring:token_nll")},
    },
    "pcr, neurons": {
        "": WEIGHTS,
        "solve": {
            ("down", "weight", "methods/common/gated_mlp:GatedMLP.columns"),
            ("down", "weight", "methods/common/gated_mlp:Neurons.to"),
            # A few of each row's logits, and what a neuron's column adds to them.
            ("down", "logits", "activations/scoring:likeliest"),
            ("down", "logits", "methods/pcr/hinge/costs:_moved"),
            ("up", "logits", "models/unembedding:Unembedding.directions"),
        },
        "tune": {*WEIGHTS, ("down", "logits", "activations/scoring:token_nll")},
    },
    "tsr": DESCENT,
    "arr": DESCENT,
    "gate": {
        "": WEIGHTS,
        "detectors": {
            ("down", "weight", "methods/common/gated_mlp:GatedMLP.idlest"),
            ("down", "weight", "methods/common/gated_mlp:Neurons.to"),
        },
        "solve": LEARNING,
        "tune": LOSSES,
    },
}
# Kilobytes down and up in each phase, at most.
MOST: dict[str, dict[str, tuple[int, int]]] = {
    "pcr": {
        "": (55, 11), "prompts": (1, 4), "capture": (950, 140), "solve": (82, 70),
        "tune": (230, 44),
    },
    "pcr, neurons": {
        "": (77, 16), "prompts": (2, 4), "capture": (174, 111), "solve": (686, 9),
        "tune": (950, 145),
    },
    "tsr": {
        "": (53, 11), "layer": (1, 1), "prompts": (1, 4), "capture": (340, 180),
        "solve": (112, 113), "tune": (7740, 330),
    },
    "arr": {
        "": (53, 11), "layer": (1, 1), "prompts": (3, 44), "capture": (340, 136),
        "solve": (47, 47), "tune": (970, 210),
    },
    "gate": {
        "": (84, 17), "layer": (1, 1), "prompts": (2, 14), "capture": (1, 680),
        "detectors": (250, 5), "solve": (200, 226), "tune": (5820, 2360),
    },
}  # fmt: skip


def kind(shape: tuple[int, ...]) -> str:
    """What a tensor of the model is."""
    if VOCABULARY in shape:
        # A block of logits may have as many rows.
        return "unembedding" if shape == (VOCABULARY, HIDDEN) else "logits"
    return {
        (HIDDEN, INNER): "weight",
        (INNER, HIDDEN): "weight",
        (INNER, INNER): "inputs squared",
    }.get(shape, "rows")


@contextmanager
def by_phase(
    patch: pytest.MonkeyPatch, copies: list[fakegpu.Copy]
) -> Iterator[dict[str, list[fakegpu.Copy]]]:
    """Sort copies by the phase that a method says it is in; "" for none."""
    parts: dict[str, list[fakegpu.Copy]] = {"": []}
    plain = Clock.phase

    @contextmanager
    def phase(self: Clock, name: str) -> Iterator[None]:
        parts[""] += copies
        copies.clear()
        with plain(self, name):
            yield
        parts.setdefault(name, []).extend(copies)
        copies.clear()

    patch.setattr(Clock, "phase", phase)
    yield parts
    parts[""] += copies


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("models") / "tied")


def large(copies: list[fakegpu.Copy]) -> set[tuple[str, str, str]]:
    """Which way large tensors go, what they are, and who asked for that."""
    return {
        (one.way, kind(one.shape), one.place.partition(".<locals>")[0])
        for one in copies
        if kind(one.shape) != "rows"
    }


@pytest.mark.parametrize("name", PLACES)
def test_what_is_copied_is_known(
    saved: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = on_one(saved)
    tokenizer = transformers.AutoTokenizer.from_pretrained(saved)
    with (
        fakegpu.noted_copies() as copies,
        by_phase(monkeypatch, copies) as parts,
    ):
        ci.defend(model, tokenizer, **little_defence(name))
    found = {phase: large(part) for phase, part in parts.items()}
    assert {phase: part for phase, part in found.items() if part} == PLACES[name]
    size: Counter[tuple[str, str]] = Counter()
    for phase, part in parts.items():
        for one in part:
            size[phase, one.way] += one.size
    assert size.total() > 0
    for phase in parts:
        sizes = [size[phase, way] / 1e3 for way in ("down", "up")]
        assert sizes == [
            min(pair) for pair in zip(sizes, MOST[name][phase], strict=True)
        ], phase


def test_what_a_guard_copies_is_known(saved: Path) -> None:
    model = on_one(saved)
    tokenizer = transformers.AutoTokenizer.from_pretrained(saved)
    prompt = tokenizer("Say it: ", return_tensors="pt").to(model.device)
    with fakegpu.noted_copies() as made:
        own = ci.Guard(model, tokenizer, forbid=["a", "b", "c"], strength=12.0)
    with fakegpu.noted_copies() as used:
        own.generate(**prompt, max_new_tokens=6, do_sample=False)
    assert own.activity.shifted > 0
    assert large(made) == set()
    assert large(used) == set()
    # Six positions: numbers, a few states and their shifts.
    assert 0 < sum(one.size for one in used) <= 13_500
