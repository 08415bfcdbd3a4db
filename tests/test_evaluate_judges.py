# SPDX-License-Identifier: Apache-2.0
"""Judges other than the matcher, and the perplexity of answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from characters import Characters
from conftest import make_tiny_model

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from cintervene.activations.next_token import (
    answer_nll,
    next_logits,
)
from cintervene.errors import ArgumentError
from cintervene.evaluate.requests.fluency import perplexities
from cintervene.evaluate.requests.outcomes import (
    Outcome,
    outcomes,
)
from cintervene.judges.classifiers import refusing_label
from cintervene.judges.compliance import (
    CompliancePrompt,
    from_answers,
    harmbench29,
)
from cintervene.prompts.chat import render


@pytest.fixture
def pair() -> Any:
    tokenizer = Characters()
    model = make_tiny_model(
        "llama", vocab_size=tokenizer.vocab_size, max_position_embeddings=512
    )
    return model, tokenizer


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


def test_next_logits_and_nll_are_those_of_single_passes(any_model: Any) -> None:
    prompts, answers = [[5, 6], [7, 8, 9], [4]], [[10, 11], [], [12, 3, 5]]
    nats = answer_nll(any_model, prompts, answers)
    logits = next_logits(any_model, prompts)
    for index, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        with torch.no_grad():
            full = any_model(torch.tensor([prompt + answer])).logits[0].float()
        at = len(prompt) - 1
        torch.testing.assert_close(logits[index], full[at], atol=1e-4, rtol=1e-4)
        rows = torch.log_softmax(full[at:-1], dim=-1)
        expected = [-rows[k, token].item() for k, token in enumerate(answer)]
        assert nats[index] == pytest.approx(expected, abs=1e-3)


def test_perplexities(pair: Any) -> None:
    model, tokenizer = pair
    found = perplexities(model, tokenizer, ["hi", "you"], ["abc", ""])
    ids = render(tokenizer, "hi")
    (nats,) = answer_nll(model, [ids], [tokenizer("abc")["input_ids"]])
    assert found == pytest.approx([np.exp(nats.mean()), 1.0])
    broken = outcomes(["abc", "I can't."], perplexities=[1e9, 1.0])
    assert broken == [Outcome.BROKEN, Outcome.REFUSED]


def test_the_label_of_refusals_is_found_by_name() -> None:
    assert refusing_label({0: "NORMAL", 1: "REJECTION"}) == 1
    assert refusing_label({0: "Refusal", 1: "compliance"}) == 0
    for labels in ({0: "A", 1: "B"}, {0: "refused", 1: "soft refusal"}):
        with pytest.raises(ArgumentError, match="labels: got"):
            refusing_label(labels)
