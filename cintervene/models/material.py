# SPDX-License-Identifier: Apache-2.0
"""What a defence is built from and its strength chosen on: never what reports use."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from cintervene import data
from cintervene.data import Split
from cintervene.models.conversation import generate, render
from cintervene.models.spelling import encode_text
from cintervene.models.utterances import Utterance, answered, spoken
from cintervene.progress import Progress

__all__ = ["Budget", "Material", "gather"]


@dataclass(frozen=True)
class Budget:
    """How much material to use.

    Attributes
    ----------
    starting, later : int
        Answers for each word that start with it, and that say it after something else.
    contrast_words, tune_words : int
        Benign words said to the same prompts: to build from, and to tune on.
    prompts, tune_prompts : int
        Everyday prompts, which the model answers itself.
    answer_tokens : int
        Length of those answers.
    """

    starting: int = 3
    later: int = 4
    contrast_words: int = 35
    tune_words: int = 15
    prompts: int = 200
    tune_prompts: int = 50
    answer_tokens: int = 24


@dataclass(frozen=True)
class Material:
    """Utterances to build from, and others to choose the strength on.

    Attributes
    ----------
    probes : list of Utterance
        Answers that say forbidden words.
    contrast : list of Utterance
        Answers that say benign words to the same prompts.
    benign : list of Utterance
        Everyday prompts with the model's own answers, and running text.
    tune_probes, tune_contrast, tune_benign : list of Utterance
        The same of other prompts and other benign words.
    """

    probes: list[Utterance]
    contrast: list[Utterance]
    benign: list[Utterance]
    tune_probes: list[Utterance]
    tune_contrast: list[Utterance]
    tune_benign: list[Utterance]


def gather(
    model: nn.Module,
    tokenizer: Any,
    words: Sequence[str],
    texts: Iterable[str],
    budget: Budget,
    progress: Progress,
) -> Material:
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
    contrast = benign[: budget.contrast_words]
    tuned = benign[len(contrast) :][: budget.tune_words]
    starting, later = budget.starting, budget.later
    prompts: dict[Split, int] = {"train": budget.prompts, "tune": budget.tune_prompts}
    answers = _answers(model, tokenizer, prompts, budget.answer_tokens, progress)
    own = [passage.text for passage in data.benign_texts("train")]
    return Material(
        probes=_spoken(tokenizer, words, "train", starting, later),
        contrast=_spoken(tokenizer, contrast, "train", starting, later),
        benign=answers["train"] + [_text(tokenizer, one) for one in (*own, *texts)],
        tune_probes=_spoken(tokenizer, words, "tune", 1, 1),
        tune_contrast=_spoken(tokenizer, tuned, "tune", 2, 2),
        tune_benign=answers["tune"],
    )


def _spoken(
    tokenizer: Any, words: Sequence[str], split: Split, starting: int, later: int
) -> list[Utterance]:
    return spoken(
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
) -> dict[Split, list[Utterance]]:
    """Answer the first so many everyday prompts of each split, all in one go."""
    rendered = {
        split: [
            render(tokenizer, prompt.text)
            for prompt in data.benign_prompts(split)[:count]
        ]
        for split, count in prompts.items()
    }
    together = [ids for part in rendered.values() for ids in part]
    done = 0

    def report(count: int) -> None:
        nonlocal done
        done += count
        progress("answering benign prompts", done, len(together))

    report(0)
    new = iter(generate(model, tokenizer, together, answer_tokens, progress=report))
    return {
        split: answered(part, [next(new) for _ in part])
        for split, part in rendered.items()
    }


def _text(tokenizer: Any, text: str) -> Utterance:
    """Running text; from its second token on all of it counts."""
    return Utterance(tuple(encode_text(tokenizer, text)), start=1)
