# SPDX-License-Identifier: Apache-2.0
"""Sweeps: what settings share is done once, and what is there is not done again."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from support.little_defences import FEW
from support.saved_models import save_tiny_model
from support.tiny_models import make_tiny_model

import cintervene as ci
from cintervene.activations.lower_layers import LowerLayers
from cintervene.errors import ArgumentError
from cintervene.evaluate import EvaluationSize, measure
from cintervene.evaluate.statistics.intervals import Estimate
from cintervene.models.weights import sha256
from cintervene.prompts import chat
from cintervene.solvers.preserve import BenignMoments
from cintervene.study import Sweep, SweepRow
from cintervene.study.sweeps import run
from cintervene.study.sweeps.rows import front_of
from cintervene.study.sweeps.settings import settings_of

WORDS = ["bad", "worse"]
SIZE = EvaluationSize(**{one.name: 4 for one in fields(EvaluationSize)})
GRID: dict[str, Any] = {
    "forbid": {"short": WORDS}, "size": SIZE, "calibration": FEW,
    "method": ["pcr:hinge=on", "pcr:hinge=off"], "layers": [[1, 2], [2]],
    "strength": [2, 4],
}  # fmt: skip
ROW = SweepRow(
    "name", "words", "pcr", "1", "2", Estimate(20.0, 10.0, 30.0),
    Estimate(12.0, 8.0, 20.0), 3.0, Estimate(1.02, 1.0, 1.04),
    Estimate(0.02, 0.01, 0.03), 0.5, 0.1, "rank 4", True, True, 2.0, "digest",
)  # fmt: skip


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    place = tmp_path_factory.mktemp("models") / "tiny"
    return ci.models.load(str(save_tiny_model(place, num_hidden_layers=3)))


@pytest.fixture(scope="module")
def made(loaded: Any, tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    return ci.sweep(*loaded, tmp_path_factory.mktemp("sweeps") / "whole", **GRID)


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the model answered, texts ran from below and norms were made."""
    found: Counter[str] = Counter()
    counted = {
        "answers": (chat, "_stop_tokens"), "passes": (LowerLayers, "__init__"),
        "norms": (BenignMoments, "factored"), "changes": (run, "defend"),
    }  # fmt: skip
    # A page and its picture for each sweep are not what is counted.
    monkeypatch.setattr(run, "write_sweep", lambda *_: None)
    for what, (owner, name) in counted.items():
        monkeypatch.setattr(owner, name, _counting(found, what, getattr(owner, name)))
    return found


def _counting(found: Counter[str], what: str, call: Any) -> Any:
    def counting(*args: Any, **options: Any) -> Any:
        found[what] += 1
        return call(*args, **options)

    return counting


def test_a_setting_is_what_defend_and_measure_find_alone(
    loaded: Any, made: Sweep
) -> None:
    assert len({row.name for row in made.rows}) == len(made.rows) == 8
    for row in made.rows[1], made.rows[5], made.rows[7]:
        alone = ci.defend(
            *loaded, forbid=WORDS, hinge=row.method.removeprefix("pcr:hinge="),
            layers=[int(layer) for layer in row.layers.split(",")],
            strength=float(row.strength), calibration=FEW,
        )  # fmt: skip
        measured = measure(*loaded, alone, split="tune", size=SIZE)
        assert row.digest == alone.digest
        assert row.first == measured.forbidden.all_tokens.starting.effect
        assert row.later == measured.forbidden.all_tokens.later.effect
        assert row.kl == measured.drift.kl_elsewhere
        assert measured.benign is not None
        assert row.benign == measured.benign.all_tokens.together.effect
        assert row.load(made.directory).digest == alone.digest
    # Neurons are those of one layer: two settings come to the same.
    digests = [row.digest for row in made.rows]
    assert digests[0] == digests[2] != digests[4]
    assert f"The same change: {made.rows[0].name}" in str(made)


@pytest.mark.parametrize(
    # Everyday prompts, those of the measurement, requests before and after; and
    # sentences about the words.
    ("hinge", "answers", "norms"), [("off", 4, 2), ("on", 5, 0)],
)  # fmt: skip
def test_a_second_strength_runs_nothing_but_itself(
    loaded: Any, counts: Counter[str], hinge: str, answers: int, norms: int,
    tmp_path: Path,
) -> None:  # fmt: skip
    grid = {**GRID, "method": [f"pcr:hinge={hinge}"], "layers": [[1, 2]]}
    ci.sweep(*loaded, tmp_path / "one", **{**grid, "strength": [2]})
    once = Counter(counts)
    passes = once["passes"]
    assert (once["answers"], once["norms"], once["changes"]) == (answers, norms, 1)
    assert passes > 0
    counts.clear()
    ci.sweep(*loaded, tmp_path / "two", **grid)
    # Only the changed model's answers to requests are its own.
    assert counts == Counter(
        answers=answers + 1, passes=passes, norms=norms, changes=2
    )  # fmt: skip


def test_layers_share_answers_and_from_the_same_first_one_all(
    loaded: Any, counts: Counter[str], tmp_path: Path
) -> None:
    grid = {**GRID, "method": ["pcr:hinge=off"], "strength": [2]}
    ci.sweep(*loaded, tmp_path / "one", **{**grid, "layers": [[1, 2]]})
    once = Counter(counts)
    counts.clear()
    ci.sweep(*loaded, tmp_path / "same", **{**grid, "layers": [[1, 2], [1]]})
    one_more = Counter(answers=1, changes=1)
    assert counts == once + one_more
    counts.clear()
    ci.sweep(*loaded, tmp_path / "other", **{**grid, "layers": [[1, 2], [2]]})
    # What enters at another layer is rounded otherwise; a change depends on no other.
    passes = Counter(passes=once["passes"], norms=1)
    assert counts == once + one_more + passes


def test_files(loaded: Any, made: Sweep) -> None:
    names = {path.name for path in made.directory.iterdir()}
    assert names >= {"table.csv", "table.json", "report.html", "sweep.jsonl"}
    table = json.loads((made.directory / "table.json").read_text("utf-8"))
    read = [SweepRow.from_dict(row) for row in table["rows"]]
    assert (read, table["split"]) == (made.rows, "tune")
    front = [row["name"] for row in table["rows"] if row["front"]]
    assert front == [row.name for row in made.front] != []
    with (made.directory / "table.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["kl_high"]) for row in rows] == [row.kl.high for row in read]
    assert [row["front"] for row in rows].count("True") == len(front)
    page = (made.directory / "report.html").read_text("utf-8")
    assert all(row.name in page for row in read)
    model, _ = loaded
    before = {name: sha256(one) for name, one in model.named_parameters()}
    for row in made.rows[::3]:
        change = row.load(made.directory)
        with change.applied(model):
            changed = {n for n, p in model.named_parameters() if sha256(p) != before[n]}
        assert changed == set(change.edits) != set()


def test_a_picture_of_the_front(made: Sweep) -> None:
    pytest.importorskip("matplotlib")
    assert (made.directory / "front.png").read_bytes().startswith(b"\x89PNG")
    page = (made.directory / "report.html").read_text("utf-8")
    assert "<svg" in page


def test_one_that_was_killed_goes_on_where_it_was(
    loaded: Any, made: Sweep, counts: Counter[str], tmp_path: Path
) -> None:
    def stop(phase: str, done: int, total: int) -> None:
        if phase == "3/4 answers after":
            raise KeyboardInterrupt

    out, grid = tmp_path / "out", {**GRID, "method": ["pcr:hinge=off"]}
    with pytest.raises(KeyboardInterrupt):
        ci.sweep(*loaded, out, progress=stop, **grid)
    assert counts["changes"] == 3
    assert len([*out.glob("*/setting.json")]) == 2
    found = ci.sweep(*loaded, out, **grid)
    assert counts["changes"] == 3 + 2
    assert _timeless(found.rows) == _timeless(made.rows[4:])
    assert ci.sweep(*loaded, out, **grid) == found
    assert counts["changes"] == 3 + 2
    # More values of what settings differ in are more settings, not other ones.
    more = ci.sweep(*loaded, out, **{**grid, "layers": [[1, 2], [2], [1]]})
    assert counts["changes"] == 3 + 2 + 2
    assert more.rows[:4] == found.rows


def _timeless(rows: Sequence[SweepRow]) -> list[SweepRow]:
    return [replace(row, seconds=0.0) for row in rows]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"forbid": {"short": ["bad", "worst"]}}, "words short 2, sha256"),
        ({"max_kl": 0.02}, r"hinge=on {'max_kl': 0.05}, got {'max_kl': 0.02}"),
        ({"preserve": ["Some text."]}, "method pcr:hinge=on {'preserve': '0, sha256"),
        ({"size": replace(SIZE, prompts=3)}, "evaluation {'prompts': 4}, got"),
        ({"split": "held_out"}, "split tune, got held_out"),
    ],
)
def test_settings_with_other_options_do_not_mix(
    loaded: Any, made: Sweep, other: dict[str, Any], message: str
) -> None:
    with pytest.raises(ArgumentError, match=message) as caught:
        ci.sweep(*loaded, made.directory, **{**GRID, **other})
    assert "give a new directory" in str(caught.value)
    assert "worst" not in str(caught.value)


def test_another_model_does_not_mix_either(
    loaded: Any, made: Sweep, tmp_path: Path
) -> None:
    model, tokenizer = loaded
    change = made.rows[0].load(made.directory)
    with (
        change.applied(model),
        pytest.raises(ArgumentError, match="settings with model tiny, sha256"),
    ):
        ci.sweep(model, tokenizer, made.directory, **GRID)


def test_a_damaged_record_is_named(loaded: Any, tmp_path: Path) -> None:
    grid = {**GRID, "method": ["pcr:hinge=off"], "layers": [[2]], "strength": [2]}
    (row,) = ci.sweep(*loaded, tmp_path, **grid).rows
    (tmp_path / row.name / "setting.json").write_text("{", "utf-8")
    with pytest.raises(ArgumentError, match=r"setting\.json is not the record"):
        ci.sweep(*loaded, tmp_path, **grid)


def test_the_front_is_what_none_beats() -> None:
    def row(effect: float, kl: float, words: str = "words") -> SweepRow:
        first, later = (Estimate(x, x, x) for x in (effect, 2 * effect))
        drift = Estimate(kl, kl, kl)
        return replace(ROW, first=first, later=later, kl=drift, words=words)

    best, mild, worse, same = row(9, 0.03), row(4, 0.01), row(4, 0.02), row(9, 0.03)
    other = row(1, 0.05, "others")
    assert front_of([worse, best, mild, same, other]) == [best, mild, same, other]
    assert front_of([row(math.inf, 0.03), best]) == [row(math.inf, 0.03)]
    assert front_of([]) == []


def test_rows_that_are_beyond_range_are_read_again() -> None:
    far = replace(ROW, first=Estimate(math.inf, 9.0, math.inf), benign=None)
    stored = json.loads(json.dumps(far.to_dict(), allow_nan=False))
    assert SweepRow.from_dict(stored) == far
    table = str(Sweep(Path(), "held_out", [far, ROW]))
    assert "inf" in table
    assert "held_out split" in table
    assert "The same change: name, name." in table


def test_settings_come_in_the_order_in_which_they_share() -> None:
    found = settings_of(
        {"a": ["bad"], "b": ["worse"]}, ["pcr:max-kl=0.02", "pcr:hinge=off"],
        ["auto", [-1]], ["auto", 2.5], "small", {"max_benign_loss": 0.2},
    )  # fmt: skip
    assert len(found) == 16
    assert [one.strength for one in found[:3]] == ["auto", "2.5", "auto"]
    assert [one.words for one in found] == ["a"] * 8 + ["b"] * 8
    first, last = found[0].config.to_dict(), found[-1].config.to_dict()
    assert (first["max_kl"], last["max_kl"], last["hinge"]) == (0.02, 0.05, "off")
    assert (last["layers"], last["strength"], last["max_benign_loss"]) == (
        [-1],
        2.5,
        0.2,
    )
    assert first["calibration"] == ci.CalibrationSize.named("small").to_dict()
    assert found[-1].name == "b_pcr-hinge=off_layers--1_2.5"


@pytest.mark.parametrize(
    ("axis", "values", "message"),
    [
        ("method", ["tsr"], "method: got 'tsr', which forbids no words"),
        ("method", ["nothing"], "method: got 'nothing'"),
        ("method", ["pcr:hing=off"], "'hing' cannot be given; expected NAME=VALUE"),
        ("method", ["pcr:strength=4"], "'strength' cannot be given"),
        ("method", ["pcr:preserve=file"], "'preserve' cannot be given"),
        ("method", ["pcr:hinge=maybe"], "hinge is 'maybe'; expected one of auto"),
        ("method", ["pcr:hinge"], "hinge is ''"),
        ("method", "pcr", "method: got 'pcr'; expected a list"),
        ("method", ["pcr", "pcr"], "give each setting once"),
        ("layers", [], "layers: got .*; expected a list of at least one"),
        ("layers", [28], "layers: got 28"),
        ("strength", [0], "strength: got 0"),
        ("budget", "huge", "budget: got 'huge'"),
    ],
)
def test_what_is_no_setting_is_refused(axis: str, values: Any, message: str) -> None:
    grid: dict[str, Any] = {
        "method": ["pcr"], "layers": ["auto"], "strength": [2], "budget": "small",
        axis: values,
    }  # fmt: skip
    with pytest.raises(ArgumentError, match=message):
        settings_of({"a": ["bad"]}, *grid.values(), {})


def test_arguments_of_all_settings_are_checked() -> None:
    with pytest.raises(ArgumentError, match="max_kls: is no parameter"):
        settings_of({"a": ["bad"]}, ["pcr"], ["auto"], [2], "small", {"max_kls": 1})
    with pytest.raises(ArgumentError, match="split: got 'fresh'"):
        ci.sweep(None, None, "nowhere", forbid=["bad"], split="fresh")


@pytest.mark.model
def test_prompts_that_begin_alike_enter_anew(smollm2: Any, tmp_path: Path) -> None:
    # What prompts share is run once below the first layer, and rounded otherwise.
    _, tokenizer = smollm2
    model = make_tiny_model(
        "llama", vocab_size=len(tokenizer), num_hidden_layers=3,
        max_position_embeddings=512, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    grid = {**GRID, "method": ["pcr:hinge=off"], "strength": [8]}
    _, last = ci.sweep(model, tokenizer, tmp_path, **grid).rows
    alone = ci.defend(
        model, tokenizer, forbid=WORDS, layers=[2], hinge="off", strength=8,
        calibration=FEW,
    )  # fmt: skip
    measured = measure(model, tokenizer, alone, split="tune", size=SIZE)
    assert last.digest == alone.digest
    assert last.kl == measured.drift.kl_elsewhere


@pytest.mark.model
def test_smollm2(smollm2: Any, tmp_path: Path) -> None:
    model, tokenizer = smollm2
    mild, strong = ci.sweep(
        model, tokenizer, tmp_path, forbid=["bomb"], layers=[[28, 29]],
        method=["pcr:hinge=off"], strength=[3, 12], calibration=FEW, size=SIZE,
    ).rows  # fmt: skip
    assert 1.0 < mild.effect < strong.effect
    assert 0.0 < mild.kl.value < strong.kl.value
