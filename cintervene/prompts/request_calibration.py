# SPDX-License-Identifier: Apache-2.0
"""Where a concept comes up, and where a model complies with harmful requests.

Of the examples or requests given every fourth is held apart, the last one of fewer: it
is what the strength is chosen on, and nothing is built from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from torch import nn

from cintervene import data
from cintervene.data import Split
from cintervene.errors import ArgumentError
from cintervene.prompts.calibration import (
    Calibration,
    Everyday,
    benign_words,
    everyday,
    passages,
    text,
)
from cintervene.prompts.calibration_size import CalibrationSize
from cintervene.prompts.chat import (
    generate,
    render,
)
from cintervene.prompts.spelling import encode_text
from cintervene.prompts.target_spans import TargetSpan
from cintervene.utils.progress import (
    Progress,
    counting,
)
from cintervene.utils.validation import check_texts

__all__ = ["check_several", "gather_examples", "gather_requests", "held_apart"]

T = TypeVar("T")
APART = 4
# What a sentence may be the answer to, whatever it is about.
FRAMES: dict[Split, tuple[str, ...]] = {
    "train": ("Write one sentence.", "Tell me something.", "Say anything you like."),
    "tune": ("Give me a sentence, please.", "What is on your mind?"),
}


def gather_examples(
    model: nn.Module,
    tokenizer: Any,
    examples: Sequence[str],
    texts: Iterable[str],
    size: CalibrationSize,
    progress: Progress,
) -> Calibration:
    """Put examples of a concept, and other text, into answers.

    Each comes as running text and as an answer to a prompt that asks for nothing in
    particular.
    """
    build, tune = held_apart(examples)
    return Calibration(
        probes=_framed(tokenizer, build, "train"),
        contrast=_framed(tokenizer, [*passages(size), *texts], "train"),
        tune_probes=_framed(tokenizer, tune, "tune"),
        **_everyday(model, tokenizer, (), size, progress),
    )


def gather_requests(
    model: nn.Module,
    tokenizer: Any,
    requests: Sequence[str],
    texts: Iterable[str],
    size: CalibrationSize,
    progress: Progress,
) -> Calibration:
    """Let the model comply with harmful requests, and with harmless ones like them.

    Every second request comes again inside a prompt that talks the model into
    complying. Answers that begin as a refusal are left out.

    Raises
    ------
    ArgumentError
        The model refuses all requests to build from, or all to tune on.
    """
    build, tune = held_apart(requests)
    sounding = [p.text for p in data.borderline_prompts("train")]
    parts = {
        "build": _talked(build, "train"),
        "tune": _talked(tune, "tune"),
        "near": _talked(sounding[: size.contrast_prompts], "train"),
    }
    together = [one for part in parts.values() for one in part]
    report = counting(progress, "answering requests", len(together))
    rendered = [render(tokenizer, one) for one in together]
    answers = generate(model, tokenizer, rendered, size.answer_tokens, progress=report)
    said = iter(zip(rendered, answers, strict=True))
    own = {name: [next(said) for _ in part] for name, part in parts.items()}
    complied = {
        name: [pair for pair in own[name] if _complies(tokenizer, pair[1])]
        for name in ("build", "tune")
    }
    if not all(complied.values()):
        raise ArgumentError(
            f"harmful: the model refuses {len(requests)} requests already; give "
            "requests that it answers"
        )
    return Calibration(
        probes=[_said(p, a[: size.positions]) for p, a in complied["build"]],
        contrast=[_said(p, a) for p, a in own["near"] if a],
        tune_probes=[_said(p, a) for p, a in complied["tune"]],
        **_everyday(model, tokenizer, texts, size, progress),
    )


def _everyday(
    model: nn.Module,
    tokenizer: Any,
    texts: Iterable[str],
    size: CalibrationSize,
    progress: Progress,
) -> Everyday:
    """What must stay, benign words included."""
    words = data.benign_words("train")
    found = everyday(model, tokenizer, texts, size, progress, words)
    found["benign"] += benign_words(tokenizer, words, size)
    return found


def held_apart(given: Sequence[T]) -> tuple[list[T], list[T]]:
    """What to build from, and what to tune on."""
    tune = list(given[APART - 1 :: APART]) or list(given[-1:])
    if len(given) < APART:
        return list(given[:-1]), tune
    return [one for i, one in enumerate(given) if i % APART != APART - 1], tune


def check_several(name: str, texts: object) -> list[str]:
    """Return the texts; refuse what is none, and fewer than can be held apart."""
    found = check_texts(name, texts)
    if len(found) < 2:
        raise ArgumentError(
            f"{name}: got {len(found)} of them; expected two or more, for a part is "
            "held apart to choose the strength on. Add others like it"
        )
    return found


def _framed(tokenizer: Any, texts: Sequence[str], split: Split) -> list[TargetSpan]:
    frames = FRAMES[split]
    found = []
    for turn, one in enumerate(texts):
        found.append(text(tokenizer, one))
        prompt = render(tokenizer, frames[turn % len(frames)])
        found.append(_said(prompt, encode_text(tokenizer, one)))
    return found


def _talked(requests: Sequence[str], split: Split) -> list[str]:
    """Requests, and every second one inside a template."""
    templates = data.jailbreak_templates(split)
    return [*requests] + [
        data.fill_in_turn(templates, turn, request)
        for turn, request in enumerate(requests[::2])
    ]


def _said(prompt: Sequence[int], answer: Sequence[int]) -> TargetSpan:
    return TargetSpan((*prompt, *answer), len(prompt), weights=(1.0,) * len(answer))


def _complies(tokenizer: Any, answer: Sequence[int]) -> bool:
    """Whether an answer says anything, and does not begin as the package's refusals."""
    begun = tokenizer.decode(answer, skip_special_tokens=True).split()[:2]
    return bool(begun) and begun not in [
        one.split()[:2] for one in data.safe_refusals()
    ]
