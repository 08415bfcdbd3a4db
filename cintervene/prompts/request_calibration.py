# SPDX-License-Identifier: Apache-2.0
"""Texts that PCR is solved on for a concept, or for answers to harmful requests.

Every fourth of the examples or requests given, or the last one of fewer, is held out to
choose the strength on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from cintervene import data
from cintervene.data import Split
from cintervene.errors import ArgumentError
from cintervene.prompts.answerer import Answerer
from cintervene.prompts.calibration import (
    Answers,
    Calibration,
    CommonParts,
    benign_passages,
    benign_word_answers,
    common_parts,
    running_text,
    tuning_split,
)
from cintervene.prompts.calibration_size import CalibrationSize
from cintervene.prompts.chat import answer_text, render
from cintervene.prompts.spelling import encode_text
from cintervene.prompts.target_spans import TargetSpan
from cintervene.prompts.thinking import after_thinking
from cintervene.utils.progress import Progress, counting
from cintervene.utils.validation import check_texts

__all__ = ["calibrate_examples", "calibrate_requests", "check_several", "tuning_split"]

# What a sentence may be the answer to, whatever it is about.
OPEN_PROMPTS: dict[Split, tuple[str, ...]] = {
    "train": ("Write one sentence.", "Tell me something.", "Say anything you like."),
    "tune": ("Give me a sentence, please.", "What is on your mind?"),
}


def calibrate_examples(
    answer: Answerer,
    tokenizer: Any,
    examples: Sequence[str],
    texts: Iterable[str],
    size: CalibrationSize,
    progress: Progress,
    given: Answers = None,
) -> Calibration:
    """Put examples of a concept, and other text, into answers.

    Each comes as running text and as an answer to a prompt that asks for nothing in
    particular.
    """
    train, tune = tuning_split(examples)
    passages = [*benign_passages(size), *texts]
    return Calibration(
        forget=_as_answers(tokenizer, train, "train"),
        near_negatives=_as_answers(tokenizer, passages, "train"),
        tune_forget=_as_answers(tokenizer, tune, "tune"),
        **_common_parts(answer, tokenizer, (), size, progress, given),
    )


def calibrate_requests(
    answer: Answerer,
    tokenizer: Any,
    requests: Sequence[str],
    texts: Iterable[str],
    size: CalibrationSize,
    progress: Progress,
    given: Answers = None,
) -> Calibration:
    """Let the model comply with harmful requests, and with harmless ones like them.

    Every second request comes again inside a prompt that talks the model into
    complying. Answers that begin as a refusal are left out.

    Raises
    ------
    ArgumentError
        The model refuses all requests to solve on, or all to tune on.
    """
    train, tune = tuning_split(requests)
    borderline = [p.text for p in data.borderline_prompts("train")]
    prompts = {
        "train": _with_jailbreaks(train, "train"),
        "tune": _with_jailbreaks(tune, "tune"),
        "near": _with_jailbreaks(borderline[: size.contrast_prompts], "train"),
    }
    batch = [prompt for part in prompts.values() for prompt in part]
    report = counting(progress, "answering requests", len(batch))
    rendered = [render(tokenizer, prompt) for prompt in batch]
    answers = answer(rendered, size.answer_tokens, step=report)
    exchanges = iter(zip(rendered, answers, strict=True))
    parts = {name: [next(exchanges) for _ in part] for name, part in prompts.items()}
    complied = {
        name: [(p, a) for p, a in parts[name] if _complies(tokenizer, a)]
        for name in ("train", "tune")
    }
    if not all(complied.values()):
        raise ArgumentError(
            f"harmful: the model refuses {len(requests)} requests already; give "
            "requests that it answers"
        )
    return Calibration(
        forget=[_answer_span(p, a[: size.positions]) for p, a in complied["train"]],
        near_negatives=[_answer_span(p, a) for p, a in parts["near"] if a],
        tune_forget=[_answer_span(p, a) for p, a in complied["tune"]],
        **_common_parts(answer, tokenizer, texts, size, progress, given),
    )


def _common_parts(
    answer: Answerer,
    tokenizer: Any,
    texts: Iterable[str],
    size: CalibrationSize,
    progress: Progress,
    given: Answers = None,
) -> CommonParts:
    """What must stay, benign words included."""
    words = data.benign_words("train")
    parts = common_parts(answer, tokenizer, texts, size, progress, words, given)
    parts["retain"] += benign_word_answers(tokenizer, words, size)
    return parts


def check_several(name: str, texts: object) -> list[str]:
    """Return the texts; refuse what is none, and fewer than can be divided."""
    checked = check_texts(name, texts)
    if len(checked) < 2:
        raise ArgumentError(
            f"{name}: got {len(checked)} of them; expected two or more, for some are "
            "held out to choose the strength on. Add others like it"
        )
    return checked


def _as_answers(tokenizer: Any, texts: Sequence[str], split: Split) -> list[TargetSpan]:
    """Each text by itself, and as an answer to a prompt that fits any text."""
    prompts = OPEN_PROMPTS[split]
    spans = []
    for turn, text in enumerate(texts):
        spans.append(running_text(tokenizer, text))
        prompt = render(tokenizer, prompts[turn % len(prompts)])
        spans.append(_answer_span(prompt, encode_text(tokenizer, text)))
    return spans


def _with_jailbreaks(requests: Sequence[str], split: Split) -> list[str]:
    """Requests, and every second one again inside a jailbreak template."""
    templates = data.jailbreak_templates(split)
    return [*requests] + [
        data.fill_in_turn(templates, turn, request)
        for turn, request in enumerate(requests[::2])
    ]


def _answer_span(prompt: Sequence[int], answer: Sequence[int]) -> TargetSpan:
    return TargetSpan((*prompt, *answer), len(prompt), weights=(1.0,) * len(answer))


def _complies(tokenizer: Any, answer: Sequence[int]) -> bool:
    """Whether an answer says anything, and does not begin as the package's refusals."""
    beginning = after_thinking(answer_text(tokenizer, answer)).split()[:2]
    refusals = [refusal.split()[:2] for refusal in data.safe_refusals()]
    return bool(beginning) and beginning not in refusals
