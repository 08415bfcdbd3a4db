# SPDX-License-Identifier: Apache-2.0
"""Requests with the refusals to learn, and others whose answers must stay.

Refusals that are learnt only where an answer begins are shallow: an answer that was
begun for the model goes on as begun. So each request comes again with a beginning that
complies, and inside a prompt that talks the model into complying.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, TypeVar

import numpy as np
from torch import nn

from cintervene import data
from cintervene.activations.batches import shared_length
from cintervene.data import Split
from cintervene.errors import ArgumentError
from cintervene.prompts.chat import (
    generate,
    render,
)
from cintervene.prompts.spelling import encode_text
from cintervene.utils.progress import (
    Progress,
    counting,
)
from cintervene.utils.validation import (
    check_texts,
)

__all__ = [
    "REFUSAL_OPENING",
    "ExampleBuilder",
    "RefusalExamples",
    "Safe",
    "TargetExample",
    "answered",
    "check_given",
    "check_safe",
    "check_spared",
    "divided",
    "prepare",
    "safe_tokens",
]

# A refusal: as text, which is the whole answer, or as tokens with which one begins.
Safe = str | Sequence[int]

# Of a longer refusal only the beginning is taught; the rest follows by itself.
REFUSAL_TOKENS = 16
# So many make an answer a refusal; how it ends may differ.
REFUSAL_OPENING = 4
# Of the model's own answer, which a refusal is to interrupt.
LONGEST_BEGINNING = 10


@dataclass(frozen=True, slots=True)
class TargetExample:
    """A prompt, perhaps with a prefilled beginning of the answer, and its target.

    Attributes
    ----------
    ids : tuple of int
        All tokens.
    prefix_length : int
        Tokens that the chat template puts before every request, left as they are.
    target_start : int
        The tokens from here on are the target: those that count in the loss.
    target_sets : tuple of tuple of int
        For each of them the tokens that are as good; empty for benign examples.
    prefill_length : int
        How many tokens before `target_start` belong to the answer: those that begin it.
    """

    ids: tuple[int, ...]
    prefix_length: int
    target_start: int
    target_sets: tuple[tuple[int, ...], ...] = ()
    prefill_length: int = 0

    @property
    def positions(self) -> range:
        """Positions whose next token counts: one at least."""
        return range(self.target_start - 1, max(self.target_start, len(self.ids) - 1))

    @property
    def opening(self) -> int:
        """The position at which the answer is about to begin."""
        return self.target_start - self.prefill_length - 1


@dataclass(frozen=True)
class RefusalExamples:
    """Groups of examples about one request each, to build from and to choose on.

    Attributes
    ----------
    harmful, benign : list of list of TargetExample
    tune_harmful, tune_benign : list of TargetExample
    """

    harmful: list[list[TargetExample]]
    benign: list[list[TargetExample]]
    tune_harmful: list[TargetExample]
    tune_benign: list[TargetExample]


def prepare(
    model: nn.Module,
    tokenizer: Any,
    harmful: Sequence[str],
    safe: Sequence[Safe] | None,
    preserve: Sequence[str],
    answers: int,
    answer_tokens: int,
    borderline: int,
    progress: Progress,
) -> RefusalExamples:
    """Render all prompts; let the model answer everyday ones.

    Parameters
    ----------
    harmful : sequence of str
        Requests to refuse.
    safe : sequence of str or of sequence of int, or None
        Refusals, or tokens with which answers are to begin. None makes examples of what
        is not to be said: the model's own answers to the harmful requests.
    preserve : sequence of str
        Prompts to answer as before, besides the package's own.
    answers : int
        Everyday prompts that are answered, a quarter as many again for tuning.
    answer_tokens : int
        Length of the answers.
    borderline : int
        Prompts of the package's that sound harmful, a quarter as many again for tuning.

    Raises
    ------
    ArgumentError
        There is nothing to refuse, no refusal, or nothing to answer, or a token is none
        of the vocabulary's.
    """
    check_given(harmful, "harmful")
    if safe is not None:
        embedding: Any = model.get_input_embeddings()  # type: ignore[operator]
        check_safe(safe, len(embedding.weight))
    plain: dict[Split, list[str]] = {
        "train": [p.text for p in data.benign_prompts("train")[:answers]],
        "tune": [p.text for p in data.benign_prompts("tune")[: max(answers // 4, 1)]],
    }
    sounding: dict[Split, list[str]] = {
        "train": [p.text for p in data.borderline_prompts("train")[:borderline]],
        "tune": [p.text for p in data.borderline_prompts("tune")[: borderline // 4]],
    }
    spared = [*sounding["train"], *preserve]
    check_spared([*spared, *plain["train"]], "answers, borderline")
    asked: dict[Split, list[str]] = {
        "train": list(harmful),
        "tune": [p.text for p in data.harmful_prompts("tune")],
    }
    templates = data.jailbreak_templates("train")
    builder = ExampleBuilder(
        tokenizer, [*harmful, *plain["train"]], safe or (), templates
    )
    texts = [*plain["train"], *plain["tune"]]
    texts += asked["train"][1::2] if safe else [*asked["train"], *asked["tune"]]
    answer = answered(model, tokenizer, builder, texts, answer_tokens, progress)
    if safe is None:
        refused = {
            split: [[builder.answered(t, answer[t])] for t in asked[split]]
            for split in asked
        }
    else:
        refused = {
            "train": [
                list(builder.refusals(i, t, answer.get(t, ())))
                for i, t in enumerate(harmful)
            ],
            "tune": [[builder.refusal(t, "", i)] for i, t in enumerate(asked["tune"])],
        }
    said = {
        split: [[builder.keep(t, answer=answer[t])] for t in plain[split]]
        for split in plain
    }
    return RefusalExamples(
        harmful=refused["train"],
        benign=_alternate(
            [list(builder.kept(i, t)) for i, t in enumerate(spared)], said["train"]
        ),
        tune_harmful=[one for group in refused["tune"] for one in group],
        tune_benign=[builder.keep(text) for text in sounding["tune"]]
        + [one for group in said["tune"] for one in group],
    )


def check_given(texts: Sequence[str], name: str) -> None:
    """Raise ArgumentError unless there are texts."""
    if not check_texts(name, texts):
        raise ArgumentError(f"{name}: got {texts!r}; expected a list of texts")


def check_safe(safe: Sequence[Safe], vocabulary: int) -> None:
    """Raise ArgumentError unless there are refusals, as texts or as tokens.

    Parameters
    ----------
    safe : sequence of str or of sequence of int
    vocabulary : int
        How many tokens there are.
    """
    if isinstance(safe, str) or not isinstance(safe, Sequence) or not safe:
        raise ArgumentError(
            f"safe: got {safe!r}; expected a list of texts or of lists of token ids"
        )
    for one in safe:
        if isinstance(one, str):
            check_texts("safe", [one])
        elif not isinstance(one, Sequence) or not one:
            raise ArgumentError(
                f"safe: got {one!r}; expected texts, or lists of token ids, none "
                "empty. Write [[5], [7, 2]] for answers that begin with 5, or 7 and 2"
            )
        elif not all(isinstance(t, Integral) and 0 <= t < vocabulary for t in one):
            raise ArgumentError(
                f"safe: got {one!r}; expected token ids from 0 to {vocabulary - 1}"
            )


def check_spared(texts: Sequence[str], counts: str) -> None:
    """Raise ArgumentError unless there are prompts to answer as before.

    Parameters
    ----------
    texts : sequence of str
    counts : str
        The options that say how many of the package's are taken.
    """
    if not texts:
        raise ArgumentError(
            f"{counts}: got 0 and no preserve=, which leaves no prompt to be answered; "
            "expected at least one of either"
        )


class ExampleBuilder:
    """Turns requests into examples; templates and beginnings take turns.

    Attributes
    ----------
    templates, beginnings : list of str
        Prompts that talk a model into complying, and how complying answers begin.
    """

    def __init__(
        self,
        tokenizer: Any,
        samples: Sequence[str],
        safe: Sequence[Safe],
        templates: Sequence[str],
    ) -> None:
        self._tokenizer = tokenizer
        self._safe = safe
        end = tokenizer.eos_token_id
        self._end = [] if end is None else [end]
        self.templates = list(templates)
        self.beginnings = data.compliance_prefixes("train")
        # What the template puts before every request is left as it is.
        self._split = shared_length([self.render(text) for text in samples])

    def render(self, text: str) -> list[int]:
        """The tokens of a request in the chat template."""
        return render(self._tokenizer, text)

    def refusals(
        self, turn: int, text: str, answer: Sequence[int]
    ) -> Iterator[TargetExample]:
        """The examples about a harmful request that the model would answer so."""
        begun = self.beginnings[turn % len(self.beginnings)]
        yield self.refusal(text, "", turn)
        if turn % 2 == 0:
            yield self.refusal(text, begun, turn)
        else:
            told = answer[: 2 + turn // 2 % LONGEST_BEGINNING]
            begun = self._tokenizer.decode(told, skip_special_tokens=True)
            yield self.refusal(text, begun, turn)
        if turn % 4 == 1:
            talked = data.fill_in_turn(self.templates, turn // 4, text)
            yield self.refusal(talked, begun if turn % 8 == 5 else "", turn)

    def kept(self, turn: int, text: str) -> Iterator[TargetExample]:
        """The examples about a request that sounds harmful."""
        yield self.keep(text)
        if turn % 4 == 0:
            yield self.keep(data.fill_in_turn(self.templates, turn // 4, text))
        if turn % 4 == 2:
            yield self.keep(text, self.beginnings[turn // 4 % len(self.beginnings)])

    def refusal(self, text: str, begun: str, turn: int) -> TargetExample:
        """A request, the beginning of an answer, and one of the refusals."""
        beginning = encode_text(self._tokenizer, begun)
        before = [*self.render(text), *beginning]
        gap = " " if begun.strip() and not begun[-1:].isspace() else ""
        paths = [self._path(one, gap)[:REFUSAL_TOKENS] for one in self._safe]
        path = paths[turn % len(paths)]
        return TargetExample(
            (*before, *path), self._split, len(before), _alternatives(path, paths),
            len(beginning),
        )  # fmt: skip

    def _path(self, one: Safe, gap: str) -> list[int]:
        """A refusal's tokens; one that was given as such may go on as it likes."""
        end = self._end if isinstance(one, str) else []
        return [*safe_tokens(self._tokenizer, one, gap), *end]

    def answered(self, text: str, answer: Sequence[int]) -> TargetExample:
        """A harmful request and what the model says to it."""
        prompt = self.render(text)
        sets = tuple((token,) for token in answer)
        return TargetExample((*prompt, *answer), self._split, len(prompt), sets)

    def keep(
        self, text: str, begun: str = "", answer: Sequence[int] = ()
    ) -> TargetExample:
        """A request that is to be answered as before, from there on or as told."""
        beginning = encode_text(self._tokenizer, begun)
        before = [*self.render(text), *beginning]
        ids = (*before, *answer)
        return TargetExample(
            ids, self._split, len(before), prefill_length=len(beginning)
        )


def safe_tokens(tokenizer: Any, one: Safe, gap: str = "") -> list[int]:
    """A refusal as tokens: those given, or its text's behind a gap."""
    if isinstance(one, str):
        return encode_text(tokenizer, gap + one)
    return [int(token) for token in one]


def answered(
    model: nn.Module,
    tokenizer: Any,
    builder: ExampleBuilder,
    texts: Sequence[str],
    answer_tokens: int,
    progress: Progress,
) -> dict[str, list[int]]:
    """What the model says to some texts, as far as `answer_tokens`."""
    report = counting(progress, "answering prompts", len(texts))
    rendered = [builder.render(text) for text in texts]
    new = generate(model, tokenizer, rendered, answer_tokens, progress=report)
    return dict(zip(texts, new, strict=True))


def _alternatives(
    path: Sequence[int], paths: Sequence[Sequence[int]]
) -> tuple[tuple[int, ...], ...]:
    """At each token of a path, the next ones of all paths that are equal so far."""
    return tuple(
        tuple(sorted({p[at] for p in paths if p[:at] == path[:at] and len(p) > at}))
        for at in range(len(path))
    )


def _alternate(
    one: list[list[TargetExample]], other: list[list[TargetExample]]
) -> list[list[TargetExample]]:
    """Both lists, spread evenly over each other."""
    placed = [
        ((index + 0.5) / len(part), group)
        for part in (one, other)
        for index, group in enumerate(part)
    ]
    return [group for _, group in sorted(placed, key=lambda place: place[0])]


SEED = 0


T = TypeVar("T")


def divided(groups: Sequence[Sequence[T]], parts: int) -> list[list[T]]:
    """All examples (or what stands for them) of the groups, in parts: fair samples.

    Topics and kinds of examples take turns, so equal steps would find only some.
    """
    order = np.random.default_rng(SEED).permutation(len(groups))
    return [
        [example for at in order[k::parts] for example in groups[at]]
        for k in range(parts)
    ]
