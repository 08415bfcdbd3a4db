# SPDX-License-Identifier: Apache-2.0
"""How much text PCR is calibrated with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from cintervene.errors import ArgumentError
from cintervene.prompts.sizes import Size
from cintervene.utils.parameters import parameter
from cintervene.utils.ranges import Plain, Whole

__all__ = ["CalibrationSize", "Sizes"]


@dataclass(frozen=True, kw_only=True)
class CalibrationSize(Size):
    """How much text to calibrate with.

    Attributes
    ----------
    starting, later : int
        Answers for each forbidden word that start with it, and that say it after
        something else.
    contrast_words, text_words : int
        Words said to the same prompts that must not suffer: from the list of benign
        words, and from benign running text.
    prompts, texts : int
        Everyday prompts, which the model answers itself, and passages of running text
        that must stay as they are.
    answer_tokens : int
        Length of the answers.
    tune_words, tune_prompts : int
        Benign words and everyday prompts to choose the strength on.
    positions : int
        Places that are constrained in each example of a concept, or the first so many
        of each harmful answer.
    contrast_prompts : int
        Prompts that sound harmful but are not, answered like harmful ones.
    sentences, sentence_tokens : int
        Texts that the model itself writes when asked to write about each forbidden
        word or to say it, by turns, and their length.
    neighbours : int
        Words for each forbidden one that the unembedding holds nearest to it, said to
        the same prompts.
    """

    budgets: ClassVar = {
        "small": {
            "starting": 1, "later": 1, "contrast_words": 8, "text_words": 60,
            "prompts": 24, "texts": 8, "answer_tokens": 16, "tune_words": 6,
            "tune_prompts": 10, "contrast_prompts": 16, "sentences": 0,
            "neighbours": 1,
        },
        "default": {},
        "large": {
            "starting": 6, "later": 6, "contrast_words": 50, "text_words": 800,
            "prompts": 292, "answer_tokens": 32, "contrast_prompts": 128,
            "sentences": 4,
        },
    }  # fmt: skip

    starting: int = parameter(Whole(), 5, "answers that start with each forbidden word")
    later: int = parameter(Whole(), 5, "answers that say it after something else")
    contrast_words: int = parameter(
        Whole(), 35, "benign words said to the same prompts"
    )
    text_words: int = parameter(Whole(), 400, "words of running text said so")
    prompts: int = parameter(Whole(), 200, "everyday prompts that the model answers")
    texts: int = parameter(Whole(), 47, "passages of running text")
    # What is chosen on, and what is constrained, has to be there.
    answer_tokens: int = parameter(Whole(least=1), 24, "length of the answers")
    tune_words: int = parameter(Whole(least=1), 15, "benign words to tune on")
    tune_prompts: int = parameter(Whole(least=1), 50, "everyday prompts to tune on")
    positions: int = parameter(
        Whole(least=1), 8, "places that are constrained in each example or answer"
    )
    contrast_prompts: int = parameter(
        Whole(), 64, "prompts that only sound harmful, answered like harmful ones"
    )
    sentences: int = parameter(
        Whole(), 2, "texts in which the model itself says each forbidden word"
    )
    sentence_tokens: int = parameter(Whole(least=1), 32, "length of these texts")
    neighbours: int = parameter(
        Whole(), 2, "words nearest to each forbidden one that must not suffer"
    )


@dataclass(frozen=True)
class Sizes(Plain):
    """A `CalibrationSize`, or the name of one; files hold it as a table."""

    def check(self, name: str, value: Any) -> CalibrationSize:
        """Return the sizes."""
        if isinstance(value, str) and value in CalibrationSize.budgets:
            return CalibrationSize.named(value)
        if not isinstance(value, CalibrationSize):
            raise ArgumentError(
                f"{name}: got {value!r}; expected a CalibrationSize, e.g. "
                "CalibrationSize(prompts=50), or the name of a budget, "
                f"{', '.join(map(repr, CalibrationSize.budgets))}"
            )
        return value

    def to_json(self, value: CalibrationSize) -> dict[str, Any]:
        """The sizes by name."""
        return value.to_dict()

    def from_json(self, value: Any) -> Any:
        """The sizes again."""
        return CalibrationSize.from_dict(value) if isinstance(value, dict) else value
