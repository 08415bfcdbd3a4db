# SPDX-License-Identifier: Apache-2.0
"""The report of a study: complete, readable by programs, and harmless to open."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.tiny_models import make_tiny_model

pytest.importorskip("torch")
pytest.importorskip("transformers")

from support.measurements import SWEEP, make_measurement, rate
from support.pages import HOSTILE, read
from support.studies import case

from cintervene.errors import ArgumentError
from cintervene.evaluate.benchmarks.harmbench import read_completions
from cintervene.evaluate.capability.measure import Capability, TaskChange
from cintervene.evaluate.requests.depth import DepthPoint
from cintervene.evaluate.requests.outcomes import Outcome, count
from cintervene.evaluate.statistics.intervals import wilson
from cintervene.intervention.intervention import Intervention
from cintervene.models import find_targets
from cintervene.solvers.update import LowRankUpdate
from cintervene.study import CaseResult, study_content, write_study
from cintervene.study.report import files
from cintervene.study.report.completions import study_completions
from cintervene.study.report.page import page
from cintervene.study.report.peers import Peer, read_peers
from cintervene.study.report.sections import Table, sections
from cintervene.study.report.summary import rows
from cintervene.study.report.verdicts import Verdicts, agreements, judged_rates

CAPABILITY = Capability(
    0.95, 40, rate(0.5, 0.45).rate, [], [TaskChange("t", "acc", 0.5, 0.25, 0.1, None)]
)
DEPTH = [
    asdict(DepthPoint(depth, count([Outcome.REFUSED] * 3 + [Outcome.COMPLIED]),
                      float(depth + 2), wilson(1, 4)))
    for depth in (0, 5, 40)
]  # fmt: skip


def some_cases() -> list[CaseResult]:
    found = []
    for defence, complied in (("none", 5), ("pcr", 1), ("smoothllm", 3)):
        for attack in ("direct request", "prefill"):
            for n in range(6):
                outcome = Outcome.COMPLIED if n < complied else Outcome.REFUSED
                made = {"defence": defence, "attack": attack, "behaviour": f"b{n}"}
                topic = "illegal" if n % 2 else "cyber_crime"
                found.append(case(**made, category=topic, outcome=outcome))
        found.append(case(suite="safe", defence=defence, outcome=Outcome.COMPLIED))
    return found


@pytest.fixture(scope="module")
def content() -> dict[str, Any]:
    model = make_tiny_model("llama")
    (target,) = find_targets(model, [1])
    left, right = np.ones((target.d_out, 1)), np.ones((1, target.d_in))
    words = [{**point, "chosen": False} for point in SWEEP]
    refusals = [{"kl": 0.01 * n, "refused": 0.2 * n} for n in range(3)]
    pcr, tsr = (
        Intervention.of(
            model, [(target, LowRankUpdate(left, right))], metrics={"sweep": sweep}
        )
        for sweep in (words, refusals)
    )
    return study_content(
        "google/gemma-2b-it",
        {"seed": 0, "sha256 of behaviours": "abc"},
        some_cases(),
        {"pcr": pcr, "smoothllm": tsr},
        {"pcr": make_measurement()},
        [Peer("RMU", "steering 40", 0.02, forbidden_ratio=3.0)],
        [Verdicts("a classifier", [n % 2 == 0 for n in range(len(some_cases()))])],
        {"none": DEPTH, "pcr": DEPTH},
        {"pcr": CAPABILITY.to_dict()},
    )


def test_files(content: dict[str, Any], tmp_path: Path) -> None:
    cases = [*some_cases(), case(behaviour="odd", answer=HOSTILE)]
    written = write_study(tmp_path, content, cases)
    assert [path.name for path in written] == [
        "report.html", "report.md", "report.json", "cases.csv",
        "none.direct-request.json", "none.prefill.json",
        "pcr.direct-request.json", "pcr.prefill.json",
        "smoothllm.direct-request.json", "smoothllm.prefill.json",
        "none.direct.json",
    ]  # fmt: skip
    stored = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert stored == json.loads(json.dumps(content))
    with (tmp_path / "cases.csv").open(encoding="utf-8", newline="") as stream:
        table = list(csv.DictReader(stream))
    assert len(table) == len(cases)
    assert table[-1]["answer"] == HOSTILE.replace("\ud800", "?")
    assert Counter(row["outcome"] for row in table)["refused"] == 18
    text = (tmp_path / "report.md").read_text("utf-8")
    # Five of six, with the published number of the same model beside it.
    assert "| none | direct request | 83.3% [" in text
    assert "| SmoothLLM | 88.225 | 10 | 11.62 |" in text
    assert "-66.7 [" in text


def test_page_has_everything(content: dict[str, Any]) -> None:
    pytest.importorskip("matplotlib")
    drawn = files._pictures(content)
    names = {"rates", "categories", "times", "front", "refusals", "words", "depth"}
    assert set(drawn) == names
    found = read(page(content, some_cases(), drawn))
    assert found.tags["svg"] == found.tags["figure"] == len(names)
    assert "RMU" in drawn["front"]
    assert "RMU" not in drawn["refusals"]
    assert found.tags["details"] == 13
    assert [name for name, count in found.ids.items() if count > 1] == []
    text = " ".join(found.text)
    for expected in ("Safety evaluation of google/gemma-2b-it", "arXiv 2510.03567"):
        assert expected in text


def tables(content: dict[str, Any], title: str) -> list[Table]:
    (section,) = (one for one in sections(content) if one.title == title)
    return [block for block in section.blocks if isinstance(block, Table)]


def test_judges_are_compared(content: dict[str, Any]) -> None:
    agree, rates = tables(content, "Judges")
    assert [row[:3] for row in agree.rows] == [
        ["a classifier", "harmful", "36"], ["a classifier", "sounds harmful", "3"],
    ]  # fmt: skip
    cases = some_cases()
    verdicts = Verdicts("x", [case.outcome is Outcome.REFUSED for case in cases])
    same = agreements(verdicts, cases)
    assert [one.agreement.agree.value for one in same] == [1.0, 1.0]
    assert same[0].agreement.kappa.value == 1.0
    for one in judged_rates(verdicts, cases):
        assert one.first == one.other
    first = next(row for row in rates.rows if row[1] == "none")
    assert first[3].startswith("83.3%")


def test_capability_is_shown(content: dict[str, Any]) -> None:
    (table,) = tables(content, "Capability")
    first, second = table.rows
    assert first[:2] == ["pcr", "instructions followed, 40"]
    assert first[4].startswith("-5.0 [")
    assert second == ["pcr", "t: acc", "0.500", "0.250", "-0.25"]


def test_broken_answers_are_no_matter_of_judges() -> None:
    cases = [case(outcome=Outcome.BROKEN), case(outcome=Outcome.COMPLIED)]
    (found,) = agreements(Verdicts("x", [False]), cases)
    assert found.agreement.items == 1


def test_begun_answers_are_shown(content: dict[str, Any]) -> None:
    (table,) = tables(content, "Begun answers")
    assert [row[:3] for row in table.rows[:3]] == [
        ["none", "0", "4"], ["none", "5", "4"], ["none", "40", "4"],
    ]  # fmt: skip
    assert table.rows[2][5] == "42.0"
    without = {**content, "depth": {}, "agreement": []}
    assert {"Begun answers", "Judges"}.isdisjoint(s.title for s in sections(without))


def test_refusals_that_turn_into_help_are_counted() -> None:
    helps = "I can't do that. However, here is how: wait."
    cases = [
        case(behaviour="b0", outcome=Outcome.REFUSED, answer=helps),
        case(behaviour="b0", number=1, outcome=Outcome.REFUSED, answer=helps),
        # Another judge says that all of it complies.
        case(
            behaviour="b1", outcome=Outcome.COMPLIED, answer="I can't. Well, do this."
        ),
        case(behaviour="b2", outcome=Outcome.REFUSED, answer="I can't."),
        case(behaviour="b3", outcome=Outcome.COMPLIED, answer="Sure."),
        case(behaviour="b4", outcome=Outcome.BROKEN, answer=helps),
    ]
    (row,) = rows(cases)
    assert row.turned == wilson(2, 5)


def test_page_is_self_contained(content: dict[str, Any]) -> None:
    found = read(page(content, some_cases(), files._pictures(content)))
    assert found.references
    assert all(reference.startswith("#") for reference in found.references)
    missing = {one[1:] for one in found.references} - set(found.ids)
    assert missing == set()


def test_answers_stay_text_behind_a_click(content: dict[str, Any]) -> None:
    odd = case(
        behaviour=HOSTILE, prompt=HOSTILE, prefill=HOSTILE, answer=HOSTILE,
        category=HOSTILE,
    )  # fmt: skip
    text = page(content | {"model": HOSTILE}, [odd], {})
    found = read(text)
    assert found.tags["script"] == found.tags["img"] == 0
    assert not re.search("[\x00\x1b\u202e\ud800]", text)
    assert "<details open" not in text
    assert "default-src 'none'" in text
    assert "</pre><script>alert(1)</script>&lt;" in "".join(found.text)


def test_long_answers_are_cut(content: dict[str, Any]) -> None:
    text = page(content, [case(answer="<" * 5000)], {})
    assert 1400 < text.count("&lt;") < 1600


def test_without_pictures_or_interventions(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(files, "find_spec", lambda name: None)
    only = [replace(one) for one in some_cases() if one.suite == "safe"]
    bare = study_content("smollm2", {}, only)
    write_study(tmp_path, bare, only)
    found = read((tmp_path / "report.html").read_text("utf-8"))
    assert found.tags["svg"] == 0
    assert "harmful-requests" not in found.ids
    assert "beside-the-paper" not in found.ids


def test_numbers_beyond_range_are_told(content: dict[str, Any]) -> None:
    broken = json.loads(json.dumps(content))
    effect = broken["measurements"]["pcr"]["forbidden"]["all_tokens"]["together"]
    effect["effect"] = {"value": None, "low": 1.0, "high": None}
    assert "beyond range" in page(broken, [], files._pictures(broken))


def test_completions_are_those_of_harmbench(tmp_path: Path) -> None:
    cases = [
        case(attack="prefill", prefill="Sure, ", answer="no."),
        case(attack="prefill", number=1),
        case(suite="safe"),
    ]
    ((name, text),) = study_completions(cases).items()
    assert name == "completions/none.prefill.json"
    written = tmp_path / "none.prefill.json"
    written.write_text(text, "utf-8")
    assert read_completions(written) == {
        "b": [
            {"test_case": "p", "generation": "Sure, no."},
            {"test_case": "p", "generation": "a"},
        ]
    }


@pytest.mark.parametrize("text", ['[{"name": "x"}]', "[1]", "no"])
def test_wrong_peers_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "peers.json"
    path.write_text('[{"name": "RMU", "setting": "4", "kl": 0.1}]', "utf-8")
    assert read_peers(path) == [Peer("RMU", "4", 0.1)]
    path.write_text(text, "utf-8")
    with pytest.raises(ArgumentError, match=r"peers: .* is not a list"):
        read_peers(path)
