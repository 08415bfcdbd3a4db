# SPDX-License-Identifier: Apache-2.0
"""SmoothLLM: answer perturbed copies of the prompt and take a majority vote.

Source: A. Robey et al., "SmoothLLM: defending large language models against
jailbreaking attacks", arXiv 2310.03684.
"""

from __future__ import annotations

import hashlib
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from cintervene.baselines.answering import Answerer, Generation
from cintervene.errors import ArgumentError
from cintervene.judges.base import Judge, refusal_matcher

__all__ = ["Perturbation", "SmoothLLM", "perturb"]

Perturbation = Literal["swap", "patch", "insert"]


@dataclass(frozen=True, eq=False)
class SmoothLLM:
    """Another answerer, which gets several randomly perturbed copies of each prompt.

    If more than `vote` of the copies are complied with, one of those answers is
    returned, otherwise one of the refusals, chosen at random. The defaults are those of
    the authors' program.

    Attributes
    ----------
    inner : Answerer
    kind : {"swap", "patch", "insert"}
        Replace random characters, replace a run of them, or insert new ones.
    q : float, default 10
        Per cent of the characters.
    copies : int, default 10
        N of the paper; as many answers are generated.
    vote : float, default 0.5
        Gamma of the paper.
    judge : Judge
        Decides which answers refuse.
    """

    inner: Answerer
    kind: Perturbation = "swap"
    q: float = 10.0
    copies: int = 10
    vote: float = 0.5
    judge: Judge = refusal_matcher

    def __post_init__(self) -> None:
        if self.kind not in get_args(Perturbation):
            kinds = ", ".join(get_args(Perturbation))
            raise ArgumentError(
                f"kind: got {self.kind!r}, expected one of {kinds}; use 'swap'"
            )
        if not 0.0 <= self.q <= 100.0 or self.copies < 1 or not 0.0 <= self.vote < 1.0:
            raise ArgumentError(
                f"q, copies, vote: got {self.q}, {self.copies}, {self.vote}; expected "
                "0 <= q <= 100, at least one copy, and 0 <= vote < 1; the defaults are "
                "10, 10 and 0.5"
            )

    def answer(
        self, prompts: Sequence[str], generation: Generation, seed: int = 0
    ) -> list[str]:
        """Answer each prompt; see `Answerer.answer`."""
        sources = [_source(prompt, seed) for prompt in prompts]
        copied = [
            perturb(prompt, self.kind, self.q, source)
            for prompt, source in zip(prompts, sources, strict=True)
            for _ in range(self.copies)
        ]
        answers = self.inner.answer(copied, generation, seed)
        return [
            self._majority(
                prompt, answers[at * self.copies : (at + 1) * self.copies], source
            )
            for at, (prompt, source) in enumerate(zip(prompts, sources, strict=True))
        ]

    def _majority(
        self, prompt: str, answers: list[str], source: np.random.Generator
    ) -> str:
        refused = self.judge([prompt] * len(answers), answers)
        complied = sum(not one for one in refused) > self.vote * len(answers)
        agreeing = [
            answer
            for answer, no in zip(answers, refused, strict=True)
            if bool(no) != complied
        ]
        return agreeing[source.integers(len(agreeing))]


def perturb(
    text: str, kind: Perturbation, q: float, source: np.random.Generator
) -> str:
    """Change q per cent of the characters of `text`, rounded down."""
    count = int(len(text) * q / 100)
    if count == 0:
        return text
    alphabet = list(string.printable)
    drawn = [alphabet[i] for i in source.integers(len(alphabet), size=count)]
    return PERTURBATIONS[kind](text, drawn, source)


def _swap(text: str, drawn: list[str], source: np.random.Generator) -> str:
    letters = list(text)
    chosen = source.choice(len(letters), size=len(drawn), replace=False)
    for at, letter in zip(chosen, drawn, strict=True):
        letters[at] = letter
    return "".join(letters)


def _patch(text: str, drawn: list[str], source: np.random.Generator) -> str:
    start = int(source.integers(len(text) - len(drawn) + 1))
    return text[:start] + "".join(drawn) + text[start + len(drawn) :]


def _insert(text: str, drawn: list[str], source: np.random.Generator) -> str:
    letters = list(text)
    chosen = source.choice(len(letters), size=len(drawn), replace=False)
    for at, letter in zip(chosen, drawn, strict=True):
        letters[at] += letter
    return "".join(letters)


PERTURBATIONS: dict[str, Callable[[str, list[str], np.random.Generator], str]] = {
    "swap": _swap,
    "patch": _patch,
    "insert": _insert,
}


def _source(prompt: str, seed: int) -> np.random.Generator:
    """A random generator that depends only on the prompt and the seed."""
    digest = hashlib.sha256(prompt.encode()).digest()
    return np.random.default_rng([seed, int.from_bytes(digest[:8], "big")])
