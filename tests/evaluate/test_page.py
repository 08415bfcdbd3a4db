# SPDX-License-Identifier: Apache-2.0
"""The page of a defence: complete, in one file, and harmless to open."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.measurements import SWEEP, make_measurement
from support.pages import HOSTILE, read
from support.tiny_models import make_tiny_model

pytest.importorskip("torch")
pytest.importorskip("transformers")

from cintervene.evaluate import Goals, write_report
from cintervene.evaluate.report import report
from cintervene.evaluate.report.markdown import markdown
from cintervene.evaluate.report.sections import Subject
from cintervene.evaluate.words.records import Answer, WordPerplexity
from cintervene.intervention.intervention import Intervention
from cintervene.methods.account import REVERSIBLE
from cintervene.models import find_targets
from cintervene.solvers.update import LowRankUpdate

OPTIONS = {"forbid": ["gun", "bomb"], "method": "pcr", "solver": "exact"}
LAYER = {
    "name": "n", "layer": 1, "status": "CONVERGED", "cost": 2.5, "shortfall": 0.25,
    "reached_rounded": 1.25,
}  # fmt: skip
REFUSED = [
    {"strength": s, "refused": 0.2 * s, "kl": 0.01 * s, "false_refusals": 0.0}
    for s in (1.0, 2.0, 3.0)
]
GATES = [
    {"opening": o, "answering": 0.0, "refused": 0.9, "kl": 0.02, "false_refusals": 0.1}
    for o in (-1.0, 1.0)
]


def make(options: dict[str, Any] = OPTIONS, **metrics: Any) -> Intervention:
    model = make_tiny_model("llama")
    (target,) = find_targets(model, [1])
    left, right = np.ones((target.d_out, 1)), np.ones((1, target.d_in))
    pairs = [(target, LowRankUpdate(left, right))]
    if "sweep" in metrics:
        sweep = metrics["sweep"]
        metrics["sweep"] = [{**p, "chosen": n == 1} for n, p in enumerate(sweep)]
    return Intervention.of(model, pairs, options=options, metrics=metrics)


def page_of(*about: Any) -> str:
    """The page alone, without the pictures that are files beside it."""
    intervention, measurement, *_ = (*about, None)
    return report._page(Subject(intervention, measurement, Goals()), "today")


def test_the_page_says_all_that_there_is() -> None:
    pytest.importorskip("matplotlib")
    change = make(sweep=SWEEP, layers=[LAYER])
    page = page_of(change, make_measurement())
    found = read(page)
    assert set(found.ids) >= {
        "goals", "what-was-changed", "effect-against-drift", "word-by-word", "answers",
        "certificate", "limits", "use",
    }  # fmt: skip
    assert [name for name, count in found.ids.items() if count > 1] == []
    assert found.tags["svg"] == found.tags["figure"] == 2
    text = " ".join(found.text)
    for told in (
        "2 words forbidden on LlamaForCausalLM", "proved global optimum",
        "cintervene defend --model LlamaForCausalLM --method pcr",
        "No word is below 5 x", "All 5 words that were measured", REVERSIBLE,
        "model.layers.1.mlp.down_proj.weight", change.digest, "Say gun.",
    ):  # fmt: skip
        assert told in text
    edit = next(iter(change.edits.values()))
    assert f"{edit.relative_norm:.2%}" in text


def test_every_word_below_the_goal_is_named() -> None:
    words = [WordPerplexity(f"word{n}", 10.0, 10.0 * n) for n in range(1, 30)]
    measurement = make_measurement()
    forbidden = replace(measurement.forbidden, words=29, by_word=words)
    measurement = replace(measurement, forbidden=forbidden)
    text = " ".join(read(page_of(make(), measurement)).text)
    told = ", ".join(f"word{n} ({n}.00 x)" for n in range(1, 5))
    assert f"4 of 29 words are below 5 x: {told}." in text
    # Each is in the Markdown too, which has nothing to be opened.
    lines = markdown(Subject(make(), measurement, Goals()), ()).splitlines()
    assert "**All 29 words that were measured**" in lines
    for n in range(1, 30):
        assert any(re.match(rf"\| word{n} \|.* {n}\.\d* x \|", one) for one in lines)


def test_the_page_needs_nothing_else() -> None:
    page = page_of(make(sweep=SWEEP), make_measurement())
    found = read(page)
    assert all(reference.startswith("#") for reference in found.references)
    assert {one[1:] for one in found.references} <= set(found.ids)
    assert found.tags["script"] == found.tags["link"] == found.tags["img"] == 0
    assert "default-src 'none'" in page
    assert "width=device-width" in page


def test_what_models_and_users_wrote_stays_text() -> None:
    change = make(
        {**OPTIONS, "forbid": [HOSTILE], "note": HOSTILE, HOSTILE: HOSTILE},
        sweep=SWEEP, seconds={HOSTILE: 1.0},
    )  # fmt: skip
    change.model = HOSTILE
    change.versions = {HOSTILE: HOSTILE}
    measurement = make_measurement(words=[HOSTILE])
    word = WordPerplexity(HOSTILE, 10.0, 11.0)
    forbidden = replace(measurement.forbidden, by_word=[word])
    answers = [
        Answer("gun", True, HOSTILE, f"gun {HOSTILE}", HOSTILE),
        Answer("tea", False, HOSTILE, f"tea {HOSTILE}", HOSTILE),
    ]
    measurement = replace(measurement, forbidden=forbidden, answers=answers)
    page = page_of(change, measurement)
    found = read(page)
    assert found.tags["script"] == found.tags["img"] == 0
    assert not re.search("[\x00\x1b\u202e\ud800]", page)
    assert "</pre><script>alert(1)</script>&lt;" in "".join(found.text)
    notes = change._repr_html_() + measurement._repr_html_()
    shown = read(notes)
    assert shown.tags["script"] == shown.tags["img"] == 0
    assert not re.search("[\x00\x1b\u202e\ud800]", notes)


@pytest.mark.parametrize("sweep", [REFUSED, GATES])
def test_what_is_not_about_words_has_a_page_too(sweep: Any) -> None:
    pytest.importorskip("matplotlib")
    options = {"method": "gate", "harmful": 3, "refusal": "No.", "max_kl": 0.05}
    found = read(page_of(make(options, sweep=sweep)))
    text = " ".join(found.text)
    assert "LlamaForCausalLM, changed by cintervene" in text
    assert 'by saying "No."' in text
    assert "nothing proves that no smaller change" in text
    assert "--method gate" in text
    assert found.tags["svg"] == 1
    assert {"goals", "word-by-word", "answers"}.isdisjoint(found.ids)


def test_crossed_limits_come_first() -> None:
    sweep = [{**point, "kl": 0.5} for point in SWEEP]
    change = make({**OPTIONS, "max_kl": 0.05}, sweep=sweep, within_limits=False)
    page = page_of(change)
    told = page.index("Limits were crossed: max_kl: got 0.5")
    assert told < page.index("1 weight matrix was changed")
    assert "was not measured on held-out data" in page


def test_neurons_of_words_have_no_single_strength() -> None:
    change = make(
        sweep=SWEEP, strength=4.0, strengths={"gun": 3.0, "bomb": 5.0}, neurons=2,
        certified=1,
    )  # fmt: skip
    text = " ".join(read(page_of(change)).text)
    assert "Of 2 neurons that open" in text
    assert "what 1 add was proved" in text
    assert "--strength" not in text


def test_numbers_beyond_range_are_told() -> None:
    sweep = [{**point, "benign_ratio": None} for point in SWEEP]
    page = page_of(make(sweep=sweep), make_measurement())
    assert page.count("beyond range") == len(SWEEP)


def test_page_and_record_are_of_the_same_time(tmp_path: Path) -> None:
    measurement = make_measurement(words=[HOSTILE])
    write_report(tmp_path, make(), measurement)
    page = (tmp_path / "report.html").read_text("utf-8")
    record = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert f"written {record['written']}" in page
