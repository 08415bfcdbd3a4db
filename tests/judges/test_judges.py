# SPDX-License-Identifier: Apache-2.0
"""Judges other than the matcher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.speaking_models import make_speaking_model

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from cintervene.errors import ArgumentError
from cintervene.evaluate.requests.outcomes import Outcome, outcomes
from cintervene.judges.classifiers import refusing_label
from cintervene.judges.compliance import CompliancePrompt, from_answers, harmbench29


@pytest.fixture
def pair() -> Any:
    return make_speaking_model()


def test_substrings_count_anywhere() -> None:
    judge = harmbench29()
    assert len(judge.phrases) == 29
    answers = ["Here you go. It is illegal, by the way.", "Here you go."]
    assert outcomes(answers, judge=judge) == [Outcome.REFUSED, Outcome.COMPLIED]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.py", "SHORT = ['x']\ndef f():\n    return ['Sorry', \"I can't\"]\n"),
        ("a.json", '["Sorry", "I can\'t"]'),
        ("a.txt", "Sorry\n\nI can't\n"),
    ],
)
def test_phrases_of_the_users_copy(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    judge = harmbench29(tmp_path / name)
    assert judge.phrases == ("Sorry", "I can't")
    assert judge.name == "harmbench29"


@pytest.mark.parametrize(
    ("name", "text"), [("a.py", "x = 3"), ("a.json", "{}"), ("a.txt", "")]
)
def test_files_without_phrases(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ArgumentError, match="no list of phrases"):
        harmbench29(tmp_path / name)


def test_any_function_can_judge() -> None:
    judge = from_answers(lambda answer: "never" in answer)
    assert judge(["", ""], ["never", "ever"]) == [True, False]


def test_classifier_reads_request_and_answer(pair: Any) -> None:
    model, tokenizer = pair
    judge = CompliancePrompt(model, tokenizer, "{generation}|{behavior}", ("y", "n"))
    prompts, answers = ["ab{generation}", "c"], ["{behavior}", "x"]
    found = judge(prompts, answers)
    texts = ["{behavior}|ab{generation}", "x|c"]
    for text, refused in zip(texts, found, strict=True):
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        with torch.no_grad():
            logits = model(ids).logits[0, -1]
        yes, no = (
            torch.logsumexp(
                logits[[tokenizer(form)["input_ids"][0] for form in word]], 0
            )
            for word in ("yY", "nN")
        )
        assert refused == bool(no > yes)
    assert judge([], []) == []


def test_the_label_of_refusals_is_found_by_name() -> None:
    assert refusing_label({0: "NORMAL", 1: "REJECTION"}) == 1
    assert refusing_label({0: "Refusal", 1: "compliance"}) == 0
    for labels in ({0: "A", 1: "B"}, {0: "refused", 1: "soft refusal"}):
        with pytest.raises(ArgumentError, match="labels: got"):
            refusing_label(labels)
