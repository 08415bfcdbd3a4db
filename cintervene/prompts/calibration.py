# SPDX-License-Identifier: Apache-2.0
"""What a defence is built from and its strength chosen on: never what reports use."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypedDict

from torch import nn

from cintervene import data
from cintervene.data import Split
from cintervene.prompts.chat import (
    generate,
    render,
)
from cintervene.prompts.spelling import encode_text
from cintervene.prompts.target_spans import (
    TargetSpan,
    answered,
    word_spans,
)
from cintervene.utils.progress import (
    Progress,
    counting,
)
from cintervene.utils.validation import check_whole

__all__ = [
    "CalibrationSize",
    "Everyday",
    "Calibration",
    "benign_words",
    "everyday",
    "gather",
    "passages",
    "text",
]


@dataclass(frozen=True)
class CalibrationSize:
    """How much material to use.

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
    """

    starting: int = 3
    later: int = 3
    contrast_words: int = 35
    text_words: int = 400
    prompts: int = 200
    texts: int = 47
    answer_tokens: int = 24
    tune_words: int = 15
    tune_prompts: int = 50
    positions: int = 8
    contrast_prompts: int = 64

    def __post_init__(self) -> None:
        # What is chosen on, and what is constrained, has to be there.
        check_whole(1, answer_tokens=self.answer_tokens, positions=self.positions)
        check_whole(1, tune_words=self.tune_words, tune_prompts=self.tune_prompts)
        check_whole(0, **asdict(self))


@dataclass(frozen=True)
class Calibration:
    """Utterances to build from, and others to choose the strength on.

    Attributes
    ----------
    probes : list of TargetSpan
        Answers that say forbidden words.
    contrast : list of TargetSpan
        Answers that say benign words to the same prompts.
    benign : list of TargetSpan
        Everyday prompts with the model's own answers, and running text.
    tune_probes, tune_contrast, tune_benign : list of TargetSpan
        The same of other prompts and other benign words.
    """

    probes: list[TargetSpan]
    contrast: list[TargetSpan]
    benign: list[TargetSpan]
    tune_probes: list[TargetSpan]
    tune_contrast: list[TargetSpan]
    tune_benign: list[TargetSpan]


def gather(
    model: nn.Module,
    tokenizer: Any,
    words: Sequence[str],
    texts: Iterable[str],
    budget: CalibrationSize,
    progress: Progress,
) -> Calibration:
    """Spell out the words, and let the model answer everyday prompts.

    Parameters
    ----------
    words : sequence of str
        Forbidden words.
    texts : iterable of str
        Running text to preserve, besides the package's own.
    """
    forbidden = {word.casefold() for word in words}
    benign = [word for word in data.benign_words("train") if word not in forbidden]
    found = _words_of(passages(budget), forbidden.union(benign), budget.text_words)
    common = everyday(model, tokenizer, texts, budget, progress, benign)
    return Calibration(
        probes=_spoken(tokenizer, words, "train", budget.starting, budget.later),
        contrast=benign_words(tokenizer, benign, budget)
        + _spoken(tokenizer, found[::2], "train", 1, 0)
        + _spoken(tokenizer, found[1::2], "train", 0, 1),
        tune_probes=_spoken(tokenizer, words, "tune", 1, 1),
        **common,
    )


class Everyday(TypedDict):
    """Parts of `Calibration` that do not depend on what is forbidden."""

    benign: list[TargetSpan]
    tune_contrast: list[TargetSpan]
    tune_benign: list[TargetSpan]


def everyday(
    model: nn.Module,
    tokenizer: Any,
    texts: Iterable[str],
    budget: CalibrationSize,
    progress: Progress,
    words: Sequence[str],
) -> Everyday:
    """Let the model answer everyday prompts; say benign words to tune on."""
    prompts: dict[Split, int] = {"train": budget.prompts, "tune": budget.tune_prompts}
    answers = _answers(model, tokenizer, prompts, budget.answer_tokens, progress)
    running = [text(tokenizer, one) for one in (*passages(budget), *texts)]
    tuned = words[budget.contrast_words :]
    return {
        "benign": answers["train"] + running,
        "tune_contrast": _spoken(tokenizer, tuned[: budget.tune_words], "tune", 2, 2),
        "tune_benign": answers["tune"],
    }


def benign_words(
    tokenizer: Any, words: Sequence[str], budget: CalibrationSize
) -> list[TargetSpan]:
    """Answers that say the first of some benign words."""
    return _spoken(tokenizer, words[: budget.contrast_words], "train", 2, 2)


def passages(budget: CalibrationSize) -> list[str]:
    """The package's own running text."""
    return [one.text for one in data.benign_texts("train")[: budget.texts]]


def _words_of(running: Iterable[str], without: Container[str], count: int) -> list[str]:
    """Different words of running text, spread evenly over their alphabetical list."""
    found = {
        word.casefold()
        for passage in running
        for word in re.findall(r"[^\W\d_]{4,}", passage)
    }
    usable = sorted(word for word in found if word not in without)
    step = max(1, len(usable) // max(count, 1))
    return usable[::step][:count]


def _spoken(
    tokenizer: Any, words: Sequence[str], split: Split, starting: int, later: int
) -> list[TargetSpan]:
    return word_spans(
        tokenizer,
        words,
        data.obedience_templates(split),
        data.answer_prefixes(split),
        starting=starting,
        later=later,
    )


def _answers(
    model: nn.Module,
    tokenizer: Any,
    prompts: dict[Split, int],
    answer_tokens: int,
    progress: Progress,
) -> dict[Split, list[TargetSpan]]:
    """Answer the first so many everyday prompts of each split, all in one go."""
    rendered = {
        split: [
            render(tokenizer, prompt.text)
            for prompt in data.benign_prompts(split)[:count]
        ]
        for split, count in prompts.items()
    }
    together = [ids for part in rendered.values() for ids in part]
    report = counting(progress, "answering benign prompts", len(together))
    new = iter(generate(model, tokenizer, together, answer_tokens, progress=report))
    return {
        split: answered(part, [next(new) for _ in part])
        for split, part in rendered.items()
    }


def text(tokenizer: Any, text: str) -> TargetSpan:
    """Running text; from its second token on all of it counts."""
    return TargetSpan(tuple(encode_text(tokenizer, text)), start=1)
