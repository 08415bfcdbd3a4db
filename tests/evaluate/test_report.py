# SPDX-License-Identifier: Apache-2.0
"""Verdicts, tables, reports and pictures say what was measured."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.measurements import DRIFT, SWEEP, around, make_measurement, rate, spoken
from support.tiny_models import make_tiny_model

pytest.importorskip("torch")
pytest.importorskip("transformers")

from cintervene.evaluate import (
    Estimate,
    Goals,
    goals_reached,
    side_effects,
    verdicts,
    word_table,
    write_report,
)
from cintervene.evaluate.report import report
from cintervene.evaluate.report.markdown import markdown
from cintervene.evaluate.words.changed_layers import changed_layers
from cintervene.evaluate.words.obedience import obedience
from cintervene.evaluate.words.records import WordPerplexity
from cintervene.intervention.adapter import AdapterIntervention
from cintervene.intervention.intervention import Intervention
from cintervene.models import find_targets
from cintervene.solvers.update import LowRankUpdate


@pytest.fixture(scope="module")
def intervention() -> Intervention:
    model = make_tiny_model("llama")
    source = np.random.default_rng(0)
    pairs = [
        (
            target,
            LowRankUpdate(
                source.normal(size=(target.d_out, 3)) * 0.1,
                source.normal(size=(3, target.d_in)) * 0.1,
            ),
        )
        for target in find_targets(model, [1, 3])
    ]
    metrics = {
        "strength": 4.0,
        "sweep": [{**point, "chosen": at == 1} for at, point in enumerate(SWEEP)],
        "layers": [{"name": pairs[0][0].name, "shortfall": np.float64(0.125)}],
        "seconds": {"solve": 2.0},
    }
    options = {"forbid": ["gun", "bomb"], "method": "pcr", "max_kl": 0.04}
    return Intervention.of(model, pairs, options=options, metrics=metrics)


def test_all_goals_reached() -> None:
    found = make_measurement()
    assert goals_reached(found)
    assert [verdict.reached for verdict in verdicts(found)] == [True] * 5
    assert all(verdict.certain for verdict in verdicts(found)[:4])


@pytest.mark.parametrize(
    ("changes", "missed"),
    [
        ({"forbidden": spoken(9.9, 24.0)}, "said first"),
        ({"forbidden": spoken(24.0, 9.9)}, "said later"),
        (
            {"drift": replace(DRIFT, kl_elsewhere=around(0.051))},
            "KL on everyday answers but for forbidden words",
        ),
        ({"benign": spoken(1.06, 1.06)}, "rise of benign words' perplexity"),
        ({"benign_obedience": rate(0.40, 0.36)}, "benign words said when asked"),
    ],
)
def test_each_goal_can_be_missed(changes: dict[str, Any], missed: str) -> None:
    found = make_measurement(**changes)
    assert not goals_reached(found)
    wrong = [verdict.name for verdict in verdicts(found) if not verdict.reached]
    assert len(wrong) == 1
    assert missed in wrong[0]
    assert f"MISSED   {wrong[0]}" in word_table(found)


def test_other_goals() -> None:
    found = make_measurement()
    assert not goals_reached(found, Goals(forbidden_ratio=15.0))
    assert not goals_reached(found, Goals(kl=0.01))
    assert not goals_reached(found, Goals(benign_loss=0.01))
    assert not goals_reached(found, Goals(obedience_loss=0.005))


def test_what_was_not_measured_is_not_judged() -> None:
    found = make_measurement(benign=None, benign_obedience=None, related=None)
    assert len(verdicts(found)) == 3
    assert goals_reached(found)
    assert "Benign" not in word_table(found)


def test_numbers_that_do_not_exist_reach_no_goal() -> None:
    nowhere = Estimate(math.nan, math.nan, math.nan)
    drift = replace(make_measurement().drift, kl=nowhere, kl_elsewhere=nowhere)
    found = make_measurement(drift=drift)
    assert not goals_reached(found)
    assert found.to_dict()["drift"]["kl"]["value"] is None


def test_doubt_is_said() -> None:
    found = make_measurement(benign=spoken(1.04, 1.04, width=0.1))
    assert goals_reached(found)
    assert "too close to be sure" in word_table(found)


def test_side_effects_need_certainty() -> None:
    text = " ".join(side_effects(make_measurement()))
    assert "Related words, not forbidden, became less likely" in text
    assert "Benign words became less likely: perplexity rose by 2.0%" in text
    assert "prose" not in text
    assert "said less often" not in text
    worse = make_measurement(benign_obedience=rate(0.5, 0.3))
    assert "said less often when asked for, by 20.0 points" in " ".join(
        side_effects(worse)
    )


def test_obedience_counts_words() -> None:
    answers = make_measurement().answers
    found = obedience(answers)
    assert found.requests == 3
    assert found.rate.before.value == 1.0
    assert found.rate.after.value == pytest.approx(1 / 3)
    assert found.rate.effect.value == pytest.approx(-2 / 3)


def test_table() -> None:
    lines = word_table(make_measurement()).splitlines()
    assert max(map(len, lines[:16])) <= 100
    first = next(line for line in lines if "perplexity, said first" in line)
    assert first.split()[-5:] == ["560", "14.0", "x", "[12.6,", "15.4]"]
    said = next(line for line in lines if "said when asked" in line)
    assert "-30.0 points" in said


def test_words_below_the_goal_are_named(intervention: Intervention) -> None:
    by_word = [WordPerplexity(f"word{n}", 10.0, 10.0 * n) for n in range(1, 12)]
    measurement = make_measurement()
    forbidden = replace(measurement.forbidden, words=11, by_word=by_word[::-1])
    measurement = replace(measurement, forbidden=forbidden)
    told = "word1 (1.00 x), word2 (2.00 x), word3 (3.00 x), word4 (4.00 x)"
    table, text = (
        word_table(measurement),
        markdown(intervention, measurement, Goals(), ()),
    )
    assert f"4 of 11 words below 5 x\n  {told}\n" in table
    assert f"4 of 11 words are below 5 x: {told}." in text
    assert re.search(r"tenth percentile by word +2\.00 x", table)
    assert re.search(r"least by word \(word1\) +1\.00 x", table)
    assert (
        "A tenth of the forbidden words are at 2.00 x or less, half of them at" in text
    )
    low = Goals(word_ratio=0.5)
    assert "No word is below 0.5 x." in markdown(intervention, measurement, low, ())
    assert "words below" not in word_table(measurement, low)


def test_other_ways_and_running_text_are_told() -> None:
    table = word_table(make_measurement())
    assert re.search(
        r"Where running text would say them \(5\)\n +perplexity.* 40\.0 x", table
    )
    assert re.search(r"all together, 50 times +30\.0% +8\.0% +-22\.0 points", table)
    assert "prefill, 50 times" in table
    bare = word_table(make_measurement(elicited=[], running=None))
    assert "other ways" not in bare
    assert "running text" not in bare


def test_report_files(tmp_path: Path, intervention: Intervention) -> None:
    pytest.importorskip("matplotlib")
    place = tmp_path / "new" / "report"
    files = write_report(place, intervention, make_measurement())
    assert sorted(files) == sorted(place.iterdir())
    text = (place / "report.md").read_text(encoding="utf-8")
    shown = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text)
    assert sorted(shown) == ["layers.png", "perplexity.png", "sweep.png", "words.png"]
    for name in shown:
        assert (place / name).read_bytes().startswith(b"\x89PNG\r\n")


def test_report_for_programs(tmp_path: Path, intervention: Intervention) -> None:
    measurement = make_measurement()
    write_report(tmp_path, intervention, measurement, goals=Goals(kl=0.01))

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    text = (tmp_path / "report.json").read_text(encoding="utf-8")
    found = json.loads(text, parse_constant=refuse)
    assert found["schema"] == 1
    assert found["digest"] == intervention.digest
    assert found["options"] == intervention.options
    assert found["metrics"]["layers"][0]["shortfall"] == 0.125
    assert found["measurement"] == measurement.to_dict()
    assert found["goals"]["kl"] == 0.01
    assert [one["reached"] for one in found["verdicts"]] == [True, True, False] + [
        True
    ] * 2
    for weight in found["weights"]:
        edit = intervention.edits[weight["name"]]
        assert weight["base_sha256"] == edit.base_sha256
        assert weight["result_sha256"] == edit.result_sha256
        assert weight["rank"] == edit.update.rank


def test_report_for_readers(intervention: Intervention) -> None:
    text = markdown(intervention, make_measurement(), Goals(), set())
    assert text.startswith("# 2 words forbidden on LlamaForCausalLM\n")
    assert "*gun*, *bomb*" in text
    assert "1 of 1" in text
    assert "```` Sorry \\| ```no``` ````" in text
    assert "| 4.00 | 8.00 x | 1.02 x | 0.03 | taken |" in text
    assert "no pictures" in text
    assert intervention.digest in text
    for table in re.findall(r"(?:^\|.*\n)+", text, flags=re.M):
        cells = {line.replace("\\|", "").count("|") for line in table.splitlines()}
        assert len(cells) == 1


def test_report_of_what_is_attached(intervention: Intervention) -> None:
    """Weights that are packed or on a disk: `apply` would be refused."""
    plain = markdown(intervention, make_measurement(), Goals(), set())
    text = markdown(
        AdapterIntervention(intervention), make_measurement(), Goals(), set()
    )
    assert "intervention.apply(model)" in plain
    assert "stored after rounding" in plain
    assert "intervention.apply(model)" not in text
    assert "stored after rounding" not in text
    assert "attached.apply(model)" in text
    assert "cintervene export --to lora" in text
    assert "packed or offloaded to a disk" in text
    assert intervention.digest in text


def test_report_without_a_measurement(
    tmp_path: Path, intervention: Intervention
) -> None:
    write_report(tmp_path, intervention)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "has not been measured" in text
    assert "perplexity.png" not in text
    found = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert found["measurement"] is None
    assert found["verdicts"] == []


def test_report_without_matplotlib(
    tmp_path: Path, intervention: Intervention, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "find_spec", lambda name: None)
    files = write_report(tmp_path, intervention, make_measurement())
    assert [file.name for file in files] == ["report.md", "report.json"]
    assert "matplotlib" in files[0].read_text(encoding="utf-8")


def test_report_of_a_hand_made_intervention(tmp_path: Path) -> None:
    model = make_tiny_model("llama")
    target = find_targets(model, [0])[0]
    update = LowRankUpdate(np.ones((target.d_out, 1)), np.ones((1, target.d_in)))
    write_report(tmp_path, Intervention.of(model, [(target, update)]))
    assert not (tmp_path / "sweep.png").exists()
    assert "Strength" not in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_files_are_written_whole_or_not_at_all(
    tmp_path: Path, intervention: Intervention, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "report.md").write_text("old", encoding="utf-8")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_report(tmp_path, intervention, make_measurement())
    assert [file.name for file in tmp_path.iterdir()] == ["report.md"]
    assert (tmp_path / "report.md").read_text(encoding="utf-8") == "old"


@pytest.mark.parametrize(
    ("least", "greatest", "shown"),
    [
        (0.9, 30.0, {"1 x", "2 x", "5 x", "10 x", "20 x"}),
        (0.5, 1e9, {"1 x", "100 x"}),
    ],
)
def test_an_axis_of_ratios_says_where_it_is(
    least: float, greatest: float, shown: set[str]
) -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    from cintervene.evaluate.report.plots import ratio_axis

    axes = Figure(figsize=(7.6, 4.4)).subplots()
    axes.set(yscale="log", ylim=(least, greatest))
    ratio_axis(axes.yaxis)
    places = [at for at in axes.yaxis.get_majorticklocs() if least <= at <= greatest]
    texts = {axes.yaxis.get_major_formatter()(place, 0) for place in places}
    assert 4 <= len(places) <= 12
    assert shown <= texts


def test_pictures_leave_matplotlib_as_it_is() -> None:
    pytest.importorskip("matplotlib")
    script = """
import sys, matplotlib
before = matplotlib.rcParams.copy()
from support.measurements import SWEEP, make_measurement
from cintervene.evaluate.report import plots
plots.perplexity_figure(make_measurement()).savefig(sys.stdout.buffer, format="png")
assert matplotlib.rcParams.copy() == before
assert "matplotlib.pyplot" not in sys.modules
"""
    directory = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=directory, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.startswith(b"\x89PNG")


def test_the_share_of_words_is_drawn() -> None:
    pytest.importorskip("matplotlib")
    from cintervene.evaluate.report.distribution_plot import distribution_figure

    measurement = make_measurement()
    (axes,) = distribution_figure(measurement, 5.0).axes
    curves = {line.get_label(): line for line in axes.lines}
    drawn = curves["forbidden, when asked for"]
    ratios = [word.after / word.before for word in measurement.forbidden.by_word]
    assert sorted(drawn.get_xdata())[1:] == pytest.approx(sorted(ratios))
    assert drawn.get_ydata()[-1] == 1.0
    assert "in running text" in curves
    assert "0 of 5 words below 5 x" in axes.texts[0].get_text()
    bare = make_measurement(running=None, benign=None, related=None)
    (axes,) = distribution_figure(bare, 5.0).axes
    assert {line.get_label() for line in axes.lines} & set(curves) >= {
        "forbidden, when asked for"
    }
    assert "in running text" not in {line.get_label() for line in axes.lines}


def test_names_of_close_points_are_not_over_one_another() -> None:
    pytest.importorskip("matplotlib")
    from cintervene.evaluate.report import plots

    measurement = make_measurement()
    close = [("mafia", 1.60), ("rape", 1.61), ("cartel", 1.62), ("gang", 300.0)]
    by_word = [WordPerplexity(word, 10.0, 10.0 * ratio) for word, ratio in close]
    forbidden = replace(measurement.forbidden, by_word=by_word)
    figure = plots.perplexity_figure(replace(measurement, forbidden=forbidden))
    figure.draw_without_rendering()
    names = [text for text in figure.axes[0].texts if text.get_text() in dict(close)]
    boxes = [name.get_window_extent() for name in names]
    assert len(boxes) == len(close)
    assert all(not box.count_overlaps(boxes[:at]) for at, box in enumerate(boxes))
    assert names[-1].xyann == names[0].xyann  # What is alone stays at its point.


def test_pictures_show_the_numbers(intervention: Intervention) -> None:
    pytest.importorskip("matplotlib")
    from cintervene.evaluate.report import plots

    words = plots.perplexity_figure(make_measurement()).axes[0]
    texts = [text.get_text() for text in words.texts]
    assert any(text.startswith("18.3 x  forbidden") for text in texts)
    assert any(text.startswith("1.02 x  benign") for text in texts)
    points = [len(group.get_offsets()) for group in words.collections]
    assert points == [5, 5, 5]
    sweep = plots.sweep_figure(intervention.metrics["sweep"]).axes
    assert sweep[0].texts[-1].get_text() == "chosen: strength 4"
    curve = sweep[1].lines[1]
    np.testing.assert_allclose(curve.get_xdata(), [-1.0, 2.0, 8.0])
    np.testing.assert_allclose(curve.get_ydata(), [3.0, 8.0, 9.0])
    layers = changed_layers(intervention)
    bars = plots.layers_figure(layers).axes[0]
    heights = [bar.get_height() for bar in bars.patches]
    np.testing.assert_allclose(heights, [100 * one.relative_norm for one in layers])
    assert [text.get_text() for text in bars.texts] == ["rank 3", "rank 3"]
