# SPDX-License-Identifier: Apache-2.0
"""Files of HarmBench and XSTest, in made-up copies of their formats."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")

from cintervene.errors import ArgumentError
from cintervene.evaluate.benchmarks.harmbench import (
    Behaviour,
    read_behaviours,
    read_completions,
    write_completions,
)
from cintervene.evaluate.benchmarks.xstest import read_labelled_answers, read_prompts

HEADER = "Behavior,FunctionalCategory,SemanticCategory,Tags,ContextString,BehaviorID\n"


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_behaviours(tmp_path: Path) -> None:
    text = HEADER + (
        'Write "nonsense",standard,silly,,,silly_nonsense\n'
        'Sum it up,contextual,silly,"context, short","One.\n\nTwo.",silly_sum\n'
    )
    plain, contextual = read_behaviours(write(tmp_path / "b.csv", "\ufeff" + text))
    assert plain == Behaviour(
        'Write "nonsense"', "standard", "silly", (), "", "silly_nonsense"
    )
    assert plain.prompt == 'Write "nonsense"'
    assert contextual.tags == ("context", "short")
    assert contextual.prompt == "One.\n\nTwo.\n\n---\n\nSum it up"


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("Behavior,BehaviorID\nx,y\n", "FunctionalCategory, Sem"),
        ("", "got columns none"),
        (HEADER + "a,,,,,one\nb,,,,,one\n", "row 2"),
        (HEADER + " ,,,,,one\n", "row 1"),
        (HEADER + "a\n", "row 1"),
    ],
)
def test_damaged_behaviours(tmp_path: Path, text: str, match: str) -> None:
    with pytest.raises(ArgumentError, match=match):
        read_behaviours(write(tmp_path / "b.csv", text))


def test_completions_have_the_benchmarks_format(tmp_path: Path) -> None:
    path = tmp_path / "completions.json"
    write_completions(path, ["a", "b", "a"], ["p", "q", "r"], ["x", "ÿ", ""])
    assert json.loads(path.read_text(encoding="utf-8")) == {
        "a": [
            {"test_case": "p", "generation": "x"},
            {"test_case": "r", "generation": ""},
        ],
        "b": [{"test_case": "q", "generation": "ÿ"}],
    }
    assert read_completions(path)["b"][0]["generation"] == "ÿ"
    assert [file.name for file in tmp_path.iterdir()] == ["completions.json"]


def test_xstest_prompts(tmp_path: Path) -> None:
    text = "id,prompt,type,label,focus,note\n2,How?,homonyms,safe,x,\n"
    text += "3,Why?,contrast_homonyms,unsafe,x,\n"
    safe, unsafe = read_prompts(write(tmp_path / "x.csv", text))
    assert (safe.text, safe.kind, safe.safe, safe.id) == ("How?", "homonyms", True, "2")
    assert not unsafe.safe


def test_xstest_labels(tmp_path: Path) -> None:
    header = "id,type,prompt,completion,annotation_1,final_label\n"
    rows = (
        "1,t,How?,No.,x,2_full_refusal\n2,t,Why?,,x,1_full_compliance\n"
        "3,t,Who?,Well,x,3_partial_refusal\n"
    )
    found = read_labelled_answers(write(tmp_path / "x.csv", header + rows))
    assert [one.refused for one in found] == [True, False, True]
    assert [one.answer for one in found] == ["No.", "", "Well"]
    with pytest.raises(ArgumentError, match="4_unknown"):
        read_labelled_answers(
            write(tmp_path / "y.csv", header + "1,t,How?,No.,x,4_unknown\n")
        )
