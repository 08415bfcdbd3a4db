# SPDX-License-Identifier: Apache-2.0
"""Requests with the refusals to learn, and others whose answers must stay.

Refusals that are learnt only where an answer begins are shallow: an answer that was
begun for the model goes on as begun. So each request comes again with a beginning that
complies, and inside a prompt that talks the model into complying.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from cintervene import data
from cintervene.data import Split
from cintervene.errors import ArgumentError
from cintervene.models.conversation import generate, render
from cintervene.models.spelling import encode_text
from cintervene.progress import Progress, counting

__all__ = ["Lesson", "Lessons", "prepare"]

# Of a longer refusal only the beginning is taught; the rest follows by itself.
REFUSAL_TOKENS = 8
# No template's header, from the end of the request to the answer, is longer.
LONGEST_HEADER = 16


@dataclass(frozen=True, slots=True)
class Lesson:
    """A prompt, perhaps with the beginning of an answer, and how it goes on.

    Attributes
    ----------
    ids : tuple of int
        All tokens.
    split : int
        Where the request ends; what comes before is left as it is.
    start : int
        The tokens from here on count.
    sets : tuple of tuple of int
        For each of them the tokens that are as good; empty for benign lessons.
    """

    ids: tuple[int, ...]
    split: int
    start: int
    sets: tuple[tuple[int, ...], ...] = ()

    @property
    def positions(self) -> range:
        """Positions whose next token counts: one at least."""
        return range(self.start - 1, max(self.start, len(self.ids) - 1))


@dataclass(frozen=True)
class Lessons:
    """Groups of lessons about one request each, to build from and to choose on.

    Attributes
    ----------
    harmful, benign : list of list of Lesson
    tune_harmful, tune_benign : list of Lesson
    """

    harmful: list[list[Lesson]]
    benign: list[list[Lesson]]
    tune_harmful: list[Lesson]
    tune_benign: list[Lesson]


def prepare(
    model: nn.Module,
    tokenizer: Any,
    harmful: Sequence[str],
    safe: Sequence[str],
    preserve: Sequence[str],
    answers: int,
    answer_tokens: int,
    progress: Progress,
) -> Lessons:
    """Render all prompts; let the model answer everyday ones.

    Parameters
    ----------
    harmful : sequence of str
        Requests to refuse.
    safe : sequence of str
        Refusals.
    preserve : sequence of str
        Prompts to answer as before, besides the package's own.
    answers : int
        Everyday prompts that are answered, a quarter as many again for tuning.
    answer_tokens : int
        Length of the answers.

    Raises
    ------
    ArgumentError
        There is nothing to refuse or no refusal.
    """
    _check(harmful, "harmful")
    _check(safe, "safe")
    plain: dict[Split, list[str]] = {
        "train": [p.text for p in data.benign_prompts("train")[:answers]],
        "tune": [p.text for p in data.benign_prompts("tune")[: max(answers // 4, 1)]],
    }
    writer = _Writer(tokenizer, [*harmful, *plain["train"]], safe)
    said = _answers(model, tokenizer, writer, plain, answer_tokens, progress)
    borderline = [p.text for p in data.borderline_prompts("train")]
    tune_border = [p.text for p in data.borderline_prompts("tune")]
    return Lessons(
        harmful=[list(writer.refusals(i, t)) for i, t in enumerate(harmful)],
        benign=_alternate(
            [list(writer.kept(i, t)) for i, t in enumerate((*borderline, *preserve))],
            said["train"],
        ),
        tune_harmful=[
            writer.refusal(p.text, "", i)
            for i, p in enumerate(data.harmful_prompts("tune"))
        ],
        tune_benign=[writer.keep(text) for text in tune_border]
        + [one for group in said["tune"] for one in group],
    )


def _check(texts: Sequence[str], name: str) -> None:
    if isinstance(texts, str) or not texts:
        raise ArgumentError(f"{name}: got {texts!r}; expected a list of texts")
    for text in texts:
        if not isinstance(text, str) or not text.strip():
            raise ArgumentError(f"{name}: got {text!r}; expected texts, none blank")


class _Writer:
    """Turns requests into lessons; templates and beginnings take turns."""

    def __init__(
        self, tokenizer: Any, samples: Sequence[str], safe: Sequence[str]
    ) -> None:
        self._tokenizer = tokenizer
        self._safe = safe
        self._templates = data.jailbreak_templates("train")
        self._beginnings = data.compliance_prefixes("train")
        self._header = _common_ending([self.render(text) for text in samples])

    def render(self, text: str) -> list[int]:
        return render(self._tokenizer, text)

    def refusals(self, turn: int, text: str) -> Iterator[Lesson]:
        """The lessons about a harmful request."""
        begun = self._beginnings[turn % len(self._beginnings)]
        yield self.refusal(text, "", turn)
        if turn % 2 == 0:
            yield self.refusal(text, begun, turn)
        if turn % 4 == 1:
            talked = self._talk(turn // 4, text)
            yield self.refusal(talked, begun if turn % 8 == 5 else "", turn)

    def kept(self, turn: int, text: str) -> Iterator[Lesson]:
        """The lessons about a request that sounds harmful."""
        yield self.keep(text)
        if turn % 4 == 0:
            yield self.keep(self._talk(turn // 4, text))
        if turn % 4 == 2:
            yield self.keep(text, self._beginnings[turn // 4 % len(self._beginnings)])

    def refusal(self, text: str, begun: str, turn: int) -> Lesson:
        prompt = self.render(text)
        before = [*prompt, *encode_text(self._tokenizer, begun)]
        gap = " " if begun.strip() and not begun[-1:].isspace() else ""
        paths = [
            encode_text(self._tokenizer, gap + answer)[:REFUSAL_TOKENS]
            for answer in self._safe
        ]
        path = paths[turn % len(paths)]
        split = len(prompt) - self._header
        return Lesson((*before, *path), split, len(before), _alternatives(path, paths))

    def keep(self, text: str, begun: str = "", answer: Sequence[int] = ()) -> Lesson:
        prompt = self.render(text)
        before = [*prompt, *encode_text(self._tokenizer, begun)]
        return Lesson((*before, *answer), len(prompt) - self._header, len(before))

    def _talk(self, turn: int, text: str) -> str:
        template = self._templates[turn % len(self._templates)]
        return template.replace("{request}", text)


def _answers(
    model: nn.Module,
    tokenizer: Any,
    writer: _Writer,
    plain: dict[Split, list[str]],
    answer_tokens: int,
    progress: Progress,
) -> dict[Split, list[list[Lesson]]]:
    texts = [text for part in plain.values() for text in part]
    report = counting(progress, "answering benign prompts", len(texts))
    rendered = [writer.render(text) for text in texts]
    new = iter(generate(model, tokenizer, rendered, answer_tokens, progress=report))
    return {
        split: [[writer.keep(text, answer=next(new))] for text in part]
        for split, part in plain.items()
    }


def _alternatives(
    path: Sequence[int], paths: Sequence[Sequence[int]]
) -> tuple[tuple[int, ...], ...]:
    """At each token of a path, the next ones of all paths that are equal so far."""
    return tuple(
        tuple(sorted({p[at] for p in paths if p[:at] == path[:at] and len(p) > at}))
        for at in range(len(path))
    )


def _common_ending(prompts: Sequence[Sequence[int]]) -> int:
    """How many tokens follow the request in every prompt; one at least."""
    shortest = min(len(prompt) for prompt in prompts)
    shared = 0
    while (
        shared < min(shortest - 1, LONGEST_HEADER)
        and len({prompt[-1 - shared] for prompt in prompts}) == 1
    ):
        shared += 1
    return max(shared, 1)


def _alternate(
    one: list[list[Lesson]], other: list[list[Lesson]]
) -> list[list[Lesson]]:
    """Both lists, spread evenly over each other."""
    placed = [
        ((index + 0.5) / len(part), group)
        for part in (one, other)
        for index, group in enumerate(part)
    ]
    return [group for _, group in sorted(placed, key=lambda place: place[0])]
