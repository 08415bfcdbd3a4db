# SPDX-License-Identifier: Apache-2.0
"""A change that crossed its limits is written when that is asked for, and only then."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from support.gguf_files import base_of
from support.interventions import random_update

from cintervene import export
from cintervene.errors import InterventionError
from cintervene.evaluate.report.markdown import markdown
from cintervene.evaluate.report.sections import Subject
from cintervene.evaluate.words.goals import Goals
from cintervene.export.checkpoint.write import apply_to_directory, revert_directory
from cintervene.intervention.acceptance import crossed
from cintervene.intervention.intervention import Intervention
from cintervene.models import find_targets, loading

LIMITS = {"max_kl": 0.05, "max_benign_loss": 0.1}
CROSSED = {"kl": 0.2125, "benign_ratio": 1.05, "chosen": True}
OTHER = {"kl": 9.0, "benign_ratio": 9.0, "chosen": False}
METRICS = {"within_limits": False, "sweep": [OTHER, CROSSED]}
TOLD = r"^max_kl: got 0\.2125 on the tuning split, expected 0\.05 at most; write it "
TOLD += r"all the same with beyond_limits=True$"


def make(model: Any, metrics: Any = METRICS, options: Any = LIMITS) -> Intervention:
    (target,) = find_targets(model, [1])
    pairs = [(target, random_update(target))]
    return Intervention.of(model, pairs, options=options, metrics=metrics)


def saved(model: Any, directory: Path) -> Path:
    with loading.quiet():
        model.save_pretrained(directory)
    return directory


Write = Callable[..., object]


def writer(kind: str, model: Any, place: Path, source: Path) -> Write:
    """A function that writes an intervention to a place; prepares what it needs."""
    source.mkdir()
    match kind:
        case "save":
            return lambda change, **how: change.save(place, **how)
        case "lora":
            return lambda change, **how: export.lora(change, place, **how)
        case "gguf":
            pytest.importorskip("gguf")

            base = base_of(source / "base.gguf", model, "llama")
            return lambda change, **how: export.gguf(change, place, base, **how)
        case "checkpoint":
            base = saved(model, source)
            return lambda change, **how: export.checkpoint(change, base, place, **how)
    base = saved(model, source)

    def rewrite(change: Intervention, **how: Any) -> None:
        place.mkdir()
        try:
            apply_to_directory(change, base, place, **how)
        finally:
            if not any(place.iterdir()):
                place.rmdir()

    return rewrite


@pytest.mark.parametrize("kind", ["save", "lora", "gguf", "checkpoint", "in place"])
def test_writers_refuse(tiny_model: Any, tmp_path: Path, kind: str) -> None:
    model, place = tiny_model("llama"), tmp_path / "out"
    write = writer(kind, model, place, tmp_path / "source")
    before = sorted(tmp_path.rglob("*"))
    change = make(model)
    with pytest.raises(InterventionError, match=TOLD):
        write(change)
    assert sorted(tmp_path.rglob("*")) == before
    write(change, beyond_limits=True)
    assert place.exists()


def test_a_file_that_was_there_stays(tiny_model: Any, tmp_path: Path) -> None:
    model, path = tiny_model("llama"), tmp_path / "change.safetensors"
    make(model, {}).save(path)
    before = path.read_bytes()
    with pytest.raises(InterventionError, match="max_kl"):
        make(model).save(path)
    assert path.read_bytes() == before


def test_files_load_as_before_and_are_refused_again(
    tiny_model: Any, tmp_path: Path
) -> None:
    model, path = tiny_model("llama"), tmp_path / "change.safetensors"
    make(model).save(path, beyond_limits=True)
    change = Intervention.load(path)
    for form in (change, change.rebase(model), export.AdapterIntervention(change)):
        with pytest.raises(InterventionError, match=TOLD):
            export.lora(form, tmp_path / "adapter")
    with change.applied(model):
        pass
    base = saved(model, tmp_path / "base")
    made = export.checkpoint(change, base, tmp_path / "changed", beyond_limits=True)
    (tmp_path / "back").mkdir()
    revert_directory(change, made.path, tmp_path / "back")


def test_what_was_not_measured_is_not_refused(tiny_model: Any, tmp_path: Path) -> None:
    model = tiny_model("llama")
    change = make(model)
    for number, one in enumerate(
        [change.scale(2.0), change + change, make(model, {}, {}), make(model, {})]
    ):
        assert crossed(one) is None
        one.save(tmp_path / f"{number}.safetensors")


@pytest.mark.parametrize(
    ("chosen", "options", "told"),
    [
        (
            {"kl": 1.0, "benign_ratio": 1.25},
            LIMITS,
            "max_kl: got 1 on the tuning split, expected 0.05 at most; "
            "max_benign_loss: got 0.25 on the tuning split, expected 0.1 at most",
        ),
        (
            {"kl": 0.01, "false_refusals": 0.125},
            {"max_kl": 0.05, "max_false_refusals": 0.03},
            "max_false_refusals: got 0.125 on the tuning split, expected 0.03 at most",
        ),
        (
            {"kl": float("nan")},
            LIMITS,
            "max_kl: got nan on the tuning split, expected 0.05 at most",
        ),
        ({}, {}, "within_limits: got False, expected True"),
    ],
)
def test_every_limit_is_named(
    tiny_model: Any, chosen: Any, options: Any, told: str
) -> None:
    sweep = [{**chosen, "chosen": True}]
    metrics = {"within_limits": False, "sweep": sweep}
    model = tiny_model("llama")
    assert crossed(make(model, metrics, options)) == told
    assert crossed(make(model, metrics | {"within_limits": True}, options)) is None


def test_reports_say_how_it_is_written_all_the_same(tiny_model: Any) -> None:
    model = tiny_model("llama")
    beyond, within = (
        markdown(Subject(make(model, metrics), None, Goals()), set())
        for metrics in ({"within_limits": False}, {"within_limits": True})
    )
    assert "intervention.safetensors --beyond-limits --out changed" in beyond
    assert "--beyond-limits" not in within
