# SPDX-License-Identifier: Apache-2.0
"""Answers that there are already: nothing is generated, and where they are used."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from support.saved_models import save_tiny_model

from cintervene.errors import ArgumentError
from cintervene.prompts.calibration import calibrate_words
from cintervene.prompts.calibration_size import CalibrationSize
from cintervene.prompts.request_calibration import calibrate_examples
from cintervene.prompts.word_sentences import given_sentences
from cintervene.utils.progress import silent

PLAIN = [(f"Say {number}.", f"That would be {number}.") for number in range(8)]
SAYING = [("Is it good or bad?", "It is bad, very BAD."), ("And now?", "Bad.")]
SIZE = CalibrationSize(
    starting=1, later=1, contrast_words=2, text_words=2, texts=1, answer_tokens=6
)
# Nobody who could answer.
NOBODY: Any = None


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    saved = save_tiny_model(tmp_path_factory.mktemp("saved") / "base")
    return transformers.AutoTokenizer.from_pretrained(saved)


def texts(tokenizer: Any, spans: Any) -> list[str]:
    return [tokenizer.decode(span.targets) for span in spans]


def test_they_stay_but_where_a_word_is_said(tokenizer: Any) -> None:
    made = calibrate_words(
        NOBODY, tokenizer, ["bad"], (), SIZE, silent, [*SAYING, *PLAIN]
    )
    # Their beginnings, and a passage of running text; a quarter is tuned on.
    assert texts(tokenizer, made.retain)[:-1] == ["That w"] * 6
    assert texts(tokenizer, made.tune_retain) == ["That w"] * 2
    assert made.tune_said == [[False] * 6] * 2


def test_of_a_concept_all_of_them_stay(tokenizer: Any) -> None:
    given = [*SAYING, *PLAIN]
    made = calibrate_examples(
        NOBODY, tokenizer, ["A bad one.", "Another."], (), SIZE, silent, given
    )
    assert texts(tokenizer, made.retain)[:3] == ["It is ", "Bad.", "That w"]


def test_words_are_found_in_them(tokenizer: Any) -> None:
    spans = given_sentences(tokenizer, ["bad", "worse"], [*SAYING, *PLAIN])
    # In the chat, and by itself where it does not begin with the word.
    assert [(span.word, span.later) for span in spans] == [
        *[("bad", True)] * 4, ("bad", False)
    ]  # fmt: skip
    assert {text.strip().lower() for text in texts(tokenizer, spans)} == {"bad"}


def test_some_have_to_be_without_words(tokenizer: Any) -> None:
    with pytest.raises(ArgumentError, match="answers: got 1 without a forbidden word"):
        calibrate_words(
            NOBODY, tokenizer, ["bad"], (), SIZE, silent, [*SAYING, *PLAIN[:1]]
        )
