# SPDX-License-Identifier: Apache-2.0
"""What a defence is built from and its strength chosen on: never what reports use."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from torch import nn

from cintervene import data
from cintervene.data import Split
from cintervene.prompts.calibration_size import CalibrationSize
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

__all__ = [
    "Calibration",
    "Everyday",
    "benign_words",
    "everyday",
    "gather",
    "passages",
    "text",
]


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
    size: CalibrationSize,
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
    found = _words_of(passages(size), forbidden.union(benign), size.text_words)
    common = everyday(model, tokenizer, texts, size, progress, benign)
    return Calibration(
        probes=_spoken(tokenizer, words, "train", size.starting, size.later),
        contrast=benign_words(tokenizer, benign, size)
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
    size: CalibrationSize,
    progress: Progress,
    words: Sequence[str],
) -> Everyday:
    """Let the model answer everyday prompts; say benign words to tune on."""
    prompts: dict[Split, int] = {"train": size.prompts, "tune": size.tune_prompts}
    answers = _answers(model, tokenizer, prompts, size.answer_tokens, progress)
    running = [text(tokenizer, one) for one in (*passages(size), *texts)]
    tuned = words[size.contrast_words :]
    return {
        "benign": answers["train"] + running,
        "tune_contrast": _spoken(tokenizer, tuned[: size.tune_words], "tune", 2, 2),
        "tune_benign": answers["tune"],
    }


def benign_words(
    tokenizer: Any, words: Sequence[str], size: CalibrationSize
) -> list[TargetSpan]:
    """Answers that say the first of some benign words."""
    return _spoken(tokenizer, words[: size.contrast_words], "train", 2, 2)


def passages(size: CalibrationSize) -> list[str]:
    """The package's own running text."""
    return [one.text for one in data.benign_texts("train")[: size.texts]]


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
