# SPDX-License-Identifier: Apache-2.0
"""Requests with what is to be said to them, as tokens, one by one.

Refusals that are learnt only where an answer begins are shallow: an answer that was
begun for the model goes on as begun. So a request can come with a prefill, the
beginning of an answer that complies, or inside a jailbreak template.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from cintervene import data
from cintervene.activations.batches import shared_length
from cintervene.prompts.chat import generate, has_thoughts, render, ways
from cintervene.prompts.refusals import Refusal
from cintervene.prompts.spelling import encode_text
from cintervene.utils.progress import Progress, counting

__all__ = [
    "REFUSAL_OPENING",
    "ExampleBuilder",
    "TargetExample",
    "generate_answers",
    "refusal_tokens",
]

# Of a longer refusal only the beginning is learnt; the rest follows by itself.
REFUSAL_TOKENS = 16
# So many tokens make an answer a refusal; how it ends may differ.
REFUSAL_OPENING = 4
# Of the model's own answer, which a refusal is to interrupt.
LONGEST_PREFILL = 10


@dataclass(frozen=True, slots=True)
class TargetExample:
    """A prompt, perhaps with a prefill, and its target.

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
    hidden : bool
        Whether the request stands in a prompt that talks a model out of its rules, or
        hides what is asked.
    """

    ids: tuple[int, ...]
    prefix_length: int
    target_start: int
    target_sets: tuple[tuple[int, ...], ...] = ()
    prefill_length: int = 0
    hidden: bool = False

    @property
    def positions(self) -> range:
        """Positions whose next token counts: one at least."""
        return range(self.target_start - 1, max(self.target_start, len(self.ids) - 1))

    @property
    def opening(self) -> int:
        """The position at which the answer is about to begin."""
        return self.target_start - self.prefill_length - 1


class ExampleBuilder:
    """Turns requests into examples; templates and prefills take turns.

    Parameters
    ----------
    tokenizer
    samples : sequence of str
        Requests that show what the chat template puts before every one.
    refusals : sequence of Refusal
        Which are all as good.
    templates : sequence of str
        Prompts that talk a model into complying.

    Attributes
    ----------
    templates, prefills : list of str
        `prefills` is how complying answers begin.
    ending : tuple of int
        What the chat template puts between every request and its answer.
    """

    def __init__(
        self,
        tokenizer: Any,
        samples: Sequence[str],
        refusals: Sequence[Refusal],
        templates: Sequence[str],
    ) -> None:
        self._tokenizer = tokenizer
        self._thinks = has_thoughts(tokenizer)
        self._ways: dict[str, list[tuple[list[int], list[int]]]] = {}
        self._refusals = refusals
        end = tokenizer.eos_token_id
        self._end = [] if end is None else [end]
        self.templates = list(templates)
        self.prefills = data.compliance_prefixes("train")
        # What the template puts before every request is left as it is.
        rendered = [self.render(text) for text in samples]
        self._prefix_length = shared_length(rendered)
        behind = shared_length([one[::-1] for one in rendered])
        self.ending = tuple(rendered[0][len(rendered[0]) - behind :])

    def render(self, text: str) -> list[int]:
        """The tokens of a request in the chat template."""
        return render(self._tokenizer, text)

    def decode(self, answer: Sequence[int]) -> str:
        """The text of an answer's tokens."""
        return str(self._tokenizer.decode(answer, skip_special_tokens=True))

    def refusals(
        self, turn: int, text: str, answer: Sequence[int]
    ) -> Iterator[TargetExample]:
        """The examples about a harmful request.

        Parameters
        ----------
        turn : int
            Number of the request, by which templates, prefills and refusals take turns.
        text : str
        answer : sequence of int
            Tokens of what the model would say to it; needed for every second request.
        """
        prefill = self.prefills[turn % len(self.prefills)]
        yield self.refusal(text, "", turn)
        if self._thinks:
            yield self.refusal(text, "", turn, way=turn + 1)
        if turn % 2 == 0:
            yield self.refusal(text, prefill, turn)
        else:
            cut = answer[: 2 + turn // 2 % LONGEST_PREFILL]
            yield self.refusal(text, self.decode(cut), turn)
        if turn % 4 == 1:
            jailbreak = data.fill_in_turn(self.templates, turn // 4, text)
            yield self.refusal(jailbreak, prefill if turn % 8 == 5 else "", turn)

    def borderline(self, turn: int, text: str) -> Iterator[TargetExample]:
        """The examples about a request that only sounds harmful."""
        yield self.retain(text)
        if turn % 4 == 0:
            yield self.retain(data.fill_in_turn(self.templates, turn // 4, text))
        if turn % 4 == 2:
            yield self.retain(text, self.prefills[turn // 4 % len(self.prefills)])

    def refusal(
        self, text: str, prefill: str, turn: int, way: int = 0
    ) -> TargetExample:
        """A request, the beginning of an answer, and one of the refusals.

        Parameters
        ----------
        text, prefill : str
        turn : int
            By which refusals take turns.
        way : int
            0 for the request as it is rendered; others, by turns, are the template's
            other modes and think blocks, begun and empty.
        """
        before, prefill_length = self._prompt(text, prefill, way)
        gap = " " if prefill.strip() and not prefill[-1:].isspace() else ""
        paths = [self._path(one, gap)[:REFUSAL_TOKENS] for one in self._refusals]
        path = paths[turn % len(paths)]
        return TargetExample(
            (*before, *path), self._prefix_length, len(before),
            _alternatives(path, paths), prefill_length,
        )  # fmt: skip

    def harmful_answer(self, text: str, answer: Sequence[int]) -> TargetExample:
        """A harmful request with the model's own answer as target."""
        prompt = self.render(text)
        sets = tuple((token,) for token in answer)
        return TargetExample((*prompt, *answer), self._prefix_length, len(prompt), sets)

    def retain(
        self, text: str, prefill: str = "", answer: Sequence[int] = (), way: int = 0
    ) -> TargetExample:
        """A request that is to be answered as before, all along `answer`.

        See `refusal` for `way`.
        """
        before, prefill_length = self._prompt(text, prefill, way)
        return TargetExample(
            (*before, *answer), self._prefix_length, len(before),
            prefill_length=prefill_length,
        )  # fmt: skip

    def _prompt(self, text: str, prefill: str, way: int) -> tuple[list[int], int]:
        """Tokens of a request and of what begins the answer; how many of the latter."""
        first, *others = self._ways_of(text)
        prompt, begun = others[(way - 1) % len(others)] if way else first
        beginning = [*begun, *encode_text(self._tokenizer, prefill)]
        return [*prompt, *beginning], len(beginning)

    def _ways_of(self, text: str) -> list[tuple[list[int], list[int]]]:
        """All ways, found once."""
        if text not in self._ways:
            self._ways[text] = ways(self._tokenizer, text)
        return self._ways[text]

    def _path(self, refusal: Refusal, gap: str) -> list[int]:
        """A refusal's tokens; one that was given as such may go on as it likes."""
        end = self._end if isinstance(refusal, str) else []
        return [*refusal_tokens(self._tokenizer, refusal, gap), *end]


def refusal_tokens(tokenizer: Any, refusal: Refusal, gap: str = "") -> list[int]:
    """A refusal as tokens: those given, or its text's behind a gap."""
    if isinstance(refusal, str):
        return encode_text(tokenizer, gap + refusal)
    return [int(token) for token in refusal]


def generate_answers(
    model: nn.Module,
    tokenizer: Any,
    texts: Sequence[str],
    answer_tokens: int,
    progress: Progress,
) -> dict[str, list[int]]:
    """What the model says to some requests, as far as `answer_tokens`."""
    report = counting(progress, "answering prompts", len(texts))
    rendered = [render(tokenizer, text) for text in texts]
    answers = generate(model, tokenizer, rendered, answer_tokens, step=report)
    return dict(zip(texts, answers, strict=True))


def _alternatives(
    path: Sequence[int], paths: Sequence[Sequence[int]]
) -> tuple[tuple[int, ...], ...]:
    """At each token of a path, the next ones of all paths that are equal so far."""
    return tuple(
        tuple(sorted({p[at] for p in paths if p[:at] == path[:at] and len(p) > at}))
        for at in range(len(path))
    )
